"""What the parsers of an engine make of texts: run by the engine's own Python, which has nothing of ours.

It reads `{"tools": {name: text}, "reasoning": {name: text}, "templates": {name: text}}` and writes for every
parser the names of the texts that it takes apart right.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from typing import Any

CALL = ("get_weather", {"city": "Paris"})
THOUGHT = ("Hm.", "Hello")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": CALL[0],
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def vllm_mlx(given: dict[str, dict[str, str]]) -> dict[str, Any]:
    """vllm-mlx: parsers by the names that its flags take."""
    manager = importlib.import_module("vllm_mlx.tool_parsers").ToolParserManager
    reasoning = importlib.import_module("vllm_mlx.reasoning")

    def calls(name: str, text: str) -> list[Any]:
        found = manager.get_tool_parser(name)(None).extract_tool_calls(text, {"tools": TOOLS})
        return [(call["name"], json.loads(call["arguments"])) for call in found.tool_calls]

    def thought(name: str, text: str) -> tuple[str, str]:
        thought, rest = reasoning.get_parser(name)(None).extract_reasoning(text)
        return (thought or "").strip(), (rest or "").strip()

    return {
        "tools": {
            name: [which for which, text in given["tools"].items() if _same([CALL], calls, name, text)]
            for name in manager.tool_parsers
        },
        "reasoning": {
            name: [which for which, text in given["reasoning"].items() if _same(THOUGHT, thought, name, text)]
            for name in reasoning.list_parsers()
        },
    }


def mlx_lm(given: dict[str, dict[str, str]]) -> dict[str, Any]:
    """mlx-lm: parsers by their modules, and which one it chooses for a chat template."""
    package = importlib.import_module("mlx_lm.tool_parsers")
    infer = importlib.import_module("mlx_lm.tokenizer_utils")._infer_tool_parser

    def calls(name: str, text: str) -> list[Any]:
        parser = importlib.import_module(f"{package.__name__}.{name}")
        inner = text.split(parser.tool_call_start, 1)[1]
        if parser.tool_call_end:
            inner = inner[: inner.index(parser.tool_call_end)]
        found = parser.parse_tool_call(inner, TOOLS)
        return [(call["name"], call["arguments"]) for call in (found if isinstance(found, list) else [found])]

    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return {
        "tools": {
            name: [which for which, text in given["tools"].items() if _same([CALL], calls, name, text)]
            for name in names
        },
        "templates": {which: infer(_Tokenizer(text)) for which, text in given["templates"].items()},
    }


class _Tokenizer:
    """As much of one as the choice of a parser looks at."""

    def __init__(self, template: str) -> None:
        self.chat_template = template

    def get_vocab(self) -> dict[str, int]:
        return {}


def _same(expected: Any, read: Any, name: str, text: str) -> bool:
    try:
        return bool(read(name, text) == expected)
    except Exception:  # noqa: BLE001  a parser that cannot read a text may raise anything
        return False


if __name__ == "__main__":
    json.dump({"vllm-mlx": vllm_mlx, "mlx-lm": mlx_lm}[sys.argv[1]](json.load(sys.stdin)), sys.stdout)
