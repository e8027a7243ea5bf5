"""Tool calls that are the whole answer, as Llama 3 writes them, found as the text comes. Pure.

`{"name": "f", "parameters": {"x": 1}}`, several with `; ` between them, `<|python_tag|>` before them or not.
An answer that begins otherwise is text, and so is an object that is no call of one of the request's
tools: the mark apart, nothing but its keys tells a call from an answer in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from router.call_text import MOST_CALL, NoCallError, Piece, Shapes, call_of

_MARK: Final = "<|python_tag|>"
_KEYS: Final = frozenset({"name", "parameters", "arguments", "type", "function", "id"})
_FIRST_KEY: Final = re.compile(r'\{\s*"([^"]*)"')
_BETWEEN: Final = " \t\r\n;,"
_decode = json.JSONDecoder().raw_decode


class BareCalls:
    """As `CallText`, for one answer."""

    __slots__ = ("_gap", "_held", "_shapes", "_text", "calls")

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._held = ""
        self._gap = ""
        """What stood before the object that is held: it goes, unless that is no call."""
        self._text = False
        """The rest of the answer is text."""
        self.calls = 0
        """Found so far."""

    def feed(self, text: str) -> list[Piece]:
        """What *text* makes certain: an object that may be a call waits until it is whole."""
        if self._text:
            return [text] if text else []
        self._held += text
        # Tried only when it may be whole: an object of many pieces is not read again for each of them.
        whole = "}" in text and self._held.count("{") <= self._held.count("}")
        return list(self._pieces(whole))

    def flush(self) -> list[Piece]:
        """The rest, at the end of the answer."""
        pieces = list(self._pieces(True))
        rest, self._held, self._gap = self._gap + self._held, "", ""
        return [*pieces, rest] if rest.strip(_BETWEEN) or (rest and not self.calls) else pieces

    def _pieces(self, whole: bool) -> Iterator[Piece]:
        while self._held:
            begun = self._held.lstrip(_BETWEEN if self.calls else None)
            self._gap += self._held[: len(self._held) - len(begun)]
            self._held = begun
            if begun.startswith(_MARK):
                self._gap, self._held = self._gap + _MARK, begun.removeprefix(_MARK)
                continue
            if not begun or _MARK.startswith(begun):
                return
            if not self._may_be_call():
                yield self._as_text()
                return
            if not whole:
                return
            try:
                value, end = _decode(begun)
            except (ValueError, RecursionError):
                return
            try:
                call = call_of(value)
            except NoCallError:
                call = None
            if call is None or call.name not in self._shapes:
                yield self._as_text()
                return
            self.calls += 1
            self._gap, self._held = "", begun[end:]
            yield call

    def _may_be_call(self) -> bool:
        held = self._held
        if len(held) > MOST_CALL or not held.startswith("{"):
            return False
        key = _FIRST_KEY.match(held)
        return held[1:].lstrip()[:1] in ("", '"') if key is None else key[1] in _KEYS

    def _as_text(self) -> str:
        text, self._held, self._gap, self._text = self._gap + self._held, "", "", True
        return text
