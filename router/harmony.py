"""gpt-oss's channels, where an engine leaves them in the text: thoughts, answer and tool calls. Pure.

The model writes messages: `<|channel|>NAME to=functions.f <|constrain|>json<|message|>BODY<|end|>`, with
`<|start|>assistant` before all but the first.

| message | what becomes of it |
| --- | --- |
| to a function | a tool call |
| in `analysis`, or to a tool of the model's own | a thought |
| in `final`, or in `commentary` to nobody | text |

Text outside of messages stays text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, Literal

from router.call_text import MOST_CALL, Call, Piece, Thought

MOST_HEADER: Final = 1024
"""Characters of a message's header: a function's name and a few words. A longer one is text."""

_BEGIN: Final = re.compile(r"<\|start\|>|<\|channel\|>")
_END: Final = re.compile(r"<\|(?:end|call|return|start|channel)\|>")
_MARKS: Final = tuple(f"<|{word}|>" for word in ("start", "channel", "end", "call", "return"))
_BODY: Final = "<|message|>"
_CHANNEL: Final = re.compile(r"<\|channel\|>\s*(\w+)")
_TO: Final = re.compile(r"\bto=([\w.-]+)")
_FUNCTIONS: Final = "functions."

_Kind = Literal["text", "thought", "call"]


class Harmony:
    """As `CallText`, for one answer."""

    __slots__ = ("_began", "_head", "_held", "_kind", "_name", "calls")

    def __init__(self) -> None:
        self._held = ""
        self._head = False
        """What is held begins with a header."""
        self._kind: _Kind = "text"
        """Of the message whose body is being read; text between messages."""
        self._name = ""
        """The function it is for."""
        self._began = ""
        """The header of a call: it comes back where the body is none."""
        self.calls = 0
        """Found so far."""

    def feed(self, text: str) -> list[Piece]:
        """What *text* makes certain; a call waits until it is whole."""
        self._held += text
        return list(self._pieces())

    def flush(self) -> list[Piece]:
        """The rest, at the end of the answer: a call counts if its arguments are whole."""
        held, self._held = self._held, ""
        return [] if not held and self._kind != "call" else [*self._said(held)]

    def _pieces(self) -> Iterator[Piece]:
        while self._held:
            if self._head:
                header, found, rest = self._held.partition(_BODY)
                if found and len(header) <= MOST_HEADER:
                    self._enter(header)
                    self._held = rest
                    continue
                if found or len(self._held) > MOST_HEADER:
                    self._head = False
                    yield self._held
                    self._held = ""
                return
            end = _END.search(self._held)
            if end is None:
                certain = 0 if self._kind == "call" and len(self._held) <= MOST_CALL else self._certain()
                text, self._held = self._held[:certain], self._held[certain:]
                if text and self._kind == "call":
                    self._kind, text = "text", self._began + text
                if text:
                    yield self._piece(text)
                return
            yield from self._said(self._held[: end.start()])
            self._head = _BEGIN.match(end[0]) is not None
            self._held = self._held[end.start() if self._head else end.end() :]

    def _enter(self, header: str) -> None:
        self._head = False
        channel, to = _CHANNEL.search(header), _TO.search(header)
        whom = "" if to is None else to[1]
        self._name = whom.removeprefix(_FUNCTIONS)
        if whom.startswith(_FUNCTIONS):
            self._kind, self._began = "call", header + _BODY
        else:
            self._kind = "thought" if whom or (channel is not None and channel[1] == "analysis") else "text"

    def _said(self, body: str) -> Iterator[Piece]:
        """*body* ends a message."""
        kind, self._kind = self._kind, "text"
        if self._head:
            self._head = False
            yield body
        elif kind == "call":
            try:
                whole = isinstance(json.loads(body), dict)
            except (ValueError, RecursionError):
                whole = False
            self.calls += whole
            yield Call(self._name, body.strip()) if whole else self._began + body
        elif body:
            yield Thought(body) if kind == "thought" else body

    def _piece(self, text: str) -> Piece:
        return Thought(text) if self._kind == "thought" else text

    def _certain(self) -> int:
        """How much of what is held can be no part of a mark."""
        at = self._held.rfind("<", max(0, len(self._held) - max(map(len, _MARKS))))
        return at if at >= 0 and any(mark.startswith(self._held[at:]) for mark in _MARKS) else len(self._held)
