"""The last bytes of an answer: whether its stream reached its end, and what it cost. Pure.

Nothing of a stream is parsed while it passes; what its end tells is read here, once.
"""

from __future__ import annotations

import re

from registry.capability import Protocol as ApiProtocol

_KEPT = 8192
_LIMIT = 16384
"""Bytes held per stream; cut back to `_KEPT` when above. A last event with usage is under 1 KB."""
_NEAR = 320
"""Where the usage of nearly every answer lies, counted from its end."""

_PROMPT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,12})')
_COMPLETION_TOKENS = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,12})')
_RESPONSES_END = re.compile(rb"response\.(?:completed|incomplete|failed)")


class Tail:
    """Collects payload; `pieces` may be appended to directly as long as `grown` is told."""

    __slots__ = ("_size", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._size = 0

    def note(self, payload: bytes) -> None:
        """Another piece of the answer."""
        self.pieces.append(payload)
        self.grown(len(payload))

    def grown(self, size: int) -> None:
        """*size* bytes (about) were appended to `pieces`."""
        self._size += size
        if self._size > _LIMIT:
            kept = b"".join(self.pieces)[-_KEPT:]
            self.pieces[:] = (kept,)
            self._size = len(kept)

    @property
    def between_events(self) -> bool:
        """What has passed ends with a whole event, or nothing has."""
        end = b"".join(self.pieces[-4:])
        return not end or end.endswith((b"\n\n", b"\n\r\n", b"\r\r"))

    @property
    def closes_json(self) -> bool:
        """The last byte could be the end of a JSON document."""
        return b"".join(self.pieces).rstrip().endswith((b"}", b"]"))

    def has_end_mark(self, protocol: ApiProtocol, *, framed: bool) -> bool:
        """Whether the stream said that it is complete; *framed*: its framing has an end of its own."""
        tail = b"".join(self.pieces)
        if tail.rstrip().endswith(b"[DONE]"):
            return True
        if protocol is ApiProtocol.ANTHROPIC:
            return b"message_stop" in tail
        if protocol is ApiProtocol.RESPONSES:
            # The last event repeats the whole answer and may be larger than what is kept here.
            return framed or _RESPONSES_END.search(tail) is not None
        return False

    def usage(self, *, events: bool) -> tuple[int, int]:
        """Tokens (prompt, completion) as the last of the *events*, or the document, tells; else zeros."""
        pieces = self.pieces
        tail = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        # Quotes inside JSON strings are escaped: these bytes can only be a key.
        at = tail.rfind(b'"usage"', max(0, len(tail) - _NEAR))
        if at < 0:
            at = tail.rfind(b'"usage"') if events else tail.find(b'"usage"')
            if at < 0:
                return 0, 0
        prompt, completion = _PROMPT_TOKENS.search(tail, at), _COMPLETION_TOKENS.search(tail, at)
        return int(prompt[1]) if prompt else 0, int(completion[1]) if completion else 0
