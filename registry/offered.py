"""Which parsers an installed engine offers: read from its own source once per version, nothing is run.

Asking the engine itself would import it: half a minute for vLLM, before anything can be served.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from config.vocabulary import EngineName
from registry.engine import ParserOffer

_MOST_BYTES = 2**20
"""Of one source file."""
_LAZY = re.compile(r'^    "([\w.-]+)": \(', re.MULTILINE)
"""vLLM: entries of `_TOOL_PARSERS_TO_REGISTER` and `_REASONING_PARSERS_TO_REGISTER`."""
_DECORATED = re.compile(r"^@\w+\.register_module\(\s*(\[[^\]]*\]|['\"][^'\"]+['\"])", re.MULTILINE)
_REGISTERED = re.compile(r"^    register_parser\(\s*['\"]([\w.-]+)['\"]", re.MULTILINE)
_QUOTED = re.compile(r"['\"]([\w.-]+)['\"]")


@lru_cache(maxsize=16)
def offered_parsers(engine: EngineName, folder: str, version: str | None) -> ParserOffer:
    """The parsers of *engine* in the virtual environment *folder*, remembered by its *version*.

    What cannot be read offers nothing: a model then starts without a parser. Never raises.
    """
    del version  # only there to forget what an upgrade has changed
    for site in sorted(Path(folder).glob("lib/python3*/site-packages")):
        if engine is EngineName.VLLM:
            vllm = site / "vllm"
            tools = [vllm / "tool_parsers", vllm / "entrypoints" / "openai" / "tool_parsers"]
            return ParserOffer(
                _names(_LAZY, (folder / "__init__.py" for folder in tools)),
                _names(_LAZY, [vllm / "reasoning" / "__init__.py"]),
            )
        if engine is EngineName.VLLM_MLX:
            mlx = site / "vllm_mlx"
            return ParserOffer(
                _names(_DECORATED, sorted((mlx / "tool_parsers").glob("*.py"))),
                _names(_REGISTERED, [mlx / "reasoning" / "__init__.py"]),
            )
    return ParserOffer()


def _names(pattern: re.Pattern[str], files: Iterable[Path]) -> frozenset[str]:
    return frozenset(name for file in files for name in _names_in(pattern, file))


def _names_in(pattern: re.Pattern[str], file: Path) -> Iterator[str]:
    try:
        with file.open("rb") as source:
            text = source.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return
    for found in pattern.findall(text):
        yield from _QUOTED.findall(found) if found[:1] in "['\"" else [found]
