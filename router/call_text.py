"""Tool calls that a model writes into its text, found as the text comes. Pure.

| format | what the model writes |
| --- | --- |
| `tags` | `<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>` (Qwen, Hermes) |
| `tags` | `<tool_call><function=f><parameter=x>1</parameter></function></tool_call>` (Qwen3-Coder) |
| `tool_code` | a fenced block of that language with `f(x=1)`, one per line or in a list (Gemma 3) |

What looks like a call and is none passes as the text that it is.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

MOST_CALL: Final = 64 * 1024
"""Characters of one call: a file written by a tool fits in. A longer one passes as text."""
MOST_DEPTH: Final = 64
"""Brackets inside each other in a call's code: what is read by Python's parser must not exhaust its stack."""

CallFormat = Literal["tags", "tool_code", "json", "harmony"]
Marked = Literal["tags", "tool_code"]
"""Calls between marks, which are read here; `router.bare_calls` reads `json`, and `router.harmony` that."""

Shapes = Mapping[str, Mapping[str, str]]
"""The request's tools: parameters in their order, each with its JSON type ("" where none is said)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call."""

    name: str
    arguments: str
    """JSON, as OpenAI has it."""


@dataclass(frozen=True, slots=True)
class Thought:
    """What the model says to itself."""

    text: str


Piece = str | Call | Thought


class NoCallError(Exception):
    """The text between the marks is no call."""


class CallText:
    """One answer's text. `feed` gives what is certain so far: text that may flow on, and whole calls."""

    __slots__ = ("_closer", "_gap", "_held", "_inside", "_opener", "_read", "_shapes", "calls")

    def __init__(self, call_format: Marked, shapes: Shapes) -> None:
        tags = call_format == "tags"
        self._opener, self._closer = ("<tool_call>", "</tool_call>") if tags else ("```tool_code", "```")
        self._read = _read_tags if tags else _read_code
        self._shapes = shapes
        self._held = ""
        self._gap = ""
        """White space before the opening mark: it goes, unless what follows is no call."""
        self._inside = False
        self.calls = 0
        """Found so far."""

    def feed(self, text: str) -> list[Piece]:
        """What *text* makes certain: what may begin a call, and white space before it, waits."""
        self._held += text
        return list(self._pieces())

    def flush(self) -> list[Piece]:
        """The rest, at the end of the answer: a call that was not closed counts if it is whole."""
        held, self._held = self._held, ""
        if not self._inside:
            return [held] if held.strip() or (held and not self.calls) else []
        self._inside = False
        return self._called(held, "")

    def _pieces(self) -> Iterator[Piece]:
        while True:
            if self._inside:
                body, closer, rest = self._held.partition(self._closer)
                if not closer:
                    if len(self._held) > MOST_CALL:
                        self._inside = False
                        text, self._held = self._gap + self._opener + self._held, ""
                        yield text
                    return
                self._inside, self._held = False, rest
                yield from self._called(body, self._closer)
                continue
            before, opener, rest = self._held.partition(self._opener)
            if opener:
                self._inside, self._held = True, rest
                text = before.rstrip()
                self._gap = before[len(text) :]
                if text:
                    yield text
                continue
            certain = self._certain()
            text, self._held = self._held[:certain], self._held[certain:]
            if self.calls and not text.strip():
                text = ""  # between two calls
            if text:
                yield text
            return

    def _certain(self) -> int:
        """How much of what is held can be no part of a call, nor white space before one."""
        held, opener = self._held, self._opener
        if len(held) > MOST_CALL:
            return len(held)
        end = len(held)
        for size in range(min(len(opener) - 1, end), 0, -1):
            if held.endswith(opener[:size]):
                end -= size
                break
        return len(held[:end].rstrip())

    def _called(self, body: str, closer: str) -> list[Piece]:
        try:
            found = self._read(body, self._shapes)
        except NoCallError:
            return [self._gap + self._opener + body + closer]
        self.calls += len(found)
        return [*found]


# -- reading one call ------------------------------------------------------------------------------

_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
_decode = json.JSONDecoder().raw_decode


def _read_tags(body: str, shapes: Shapes) -> list[Call]:
    text = body.strip()
    if text.startswith("<function="):
        return [_marked_up(match[1].strip(), match[2], shapes) for match in _FUNCTION.finditer(text)]
    found = []
    while text:
        try:
            value, end = _decode(text)
        except (ValueError, RecursionError):
            raise NoCallError from None
        found.append(call_of(value))
        text = text[end:].lstrip(" \t\r\n,")
    if not found:
        raise NoCallError
    return found


def call_of(value: Any) -> Call:
    """The call that an object names. Raises NoCallError."""
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name:
        raise NoCallError
    arguments = value.get("arguments", value.get("parameters"))
    if arguments is None:
        arguments = {}
    return Call(name, arguments if isinstance(arguments, str) else _json(arguments))


def _marked_up(name: str, inside: str, shapes: Shapes) -> Call:
    types = shapes.get(name, {})
    values = {}
    for match in _PARAMETER.finditer(inside):
        key, text = match[1].strip(), match[2].removeprefix("\n").removesuffix("\n")
        values[key] = _typed(text, types.get(key, ""))
    return Call(name, _json(values))


def _typed(text: str, kind: str) -> Any:
    """*text* as its schema wants it; without one, a number, truth value, list or object is taken for one."""
    if kind == "string":
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        word = text.strip().lower()
        return word == "true" if kind == "boolean" and word in ("true", "false") else text
    return text if isinstance(value, str) and kind == "" else value


def _read_code(body: str, shapes: Shapes) -> list[Call]:
    text = body.strip()
    if not text or _depth(text) > MOST_DEPTH:
        raise NoCallError
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NoCallError from None
    found: list[Call] = []
    for statement in tree.body:
        if not isinstance(statement, ast.Expr | ast.Assign):
            raise NoCallError
        value = statement.value
        nodes = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
        found += [_coded(node, shapes) for node in nodes]
    if not found:
        raise NoCallError
    return found


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest


def _coded(node: ast.expr, shapes: Shapes) -> Call:
    if not isinstance(node, ast.Call):
        raise NoCallError
    name = ast.unparse(node.func)
    if name == "print" and "print" not in shapes and len(node.args) == 1 and not node.keywords:
        return _coded(node.args[0], shapes)  # Gemma often prints what its call returns
    if shapes and name not in shapes:
        raise NoCallError
    parameters = tuple(shapes.get(name, ()))
    if len(node.args) > len(parameters):
        raise NoCallError
    values = {key: _literal(arg) for key, arg in zip(parameters, node.args, strict=False)}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise NoCallError
        values[keyword.arg] = _literal(keyword.value)
    return Call(name, _json(values))


_WORDS: Final = {"true": True, "false": False, "null": None}


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise NoCallError from None


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise NoCallError from None  # a set, or bytes: no JSON
