"""The last bytes of an answer: whether its stream reached its end, and what it cost. Pure.

Nothing of a stream is parsed while it passes; what its end tells is read here, once.
"""

from __future__ import annotations

import re
from collections import deque

from registry.capability import Protocol as ApiProtocol

_KEPT = 8192
LIMIT = 16384
"""Bytes held per stream; cut back to `_KEPT` when above. A last event with usage is under 1 KB."""
_CHUNKS = 16
"""Whole chunks held, of at most 2 KB each: an answer's end is in its last three or four."""
_NEAR = 320
"""Where the usage of nearly every answer lies, counted from its end."""

_PROMPT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,12})')
_COMPLETION_TOKENS = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,12})')
_USUAL = re.compile(
    rb'"usage"\s*:\s*\{\s*"(?:prompt|input)_tokens"\s*:\s*(\d{1,12})\s*,\s*'
    rb'(?:"total_tokens"\s*:\s*\d{1,12}\s*,\s*)?"(?:completion|output)_tokens"\s*:\s*(\d{1,12})'
)
"""What nearly every engine writes, found by one look."""
_RESPONSES_END = re.compile(rb"response\.(?:completed|incomplete|failed)")


class Tail:
    """Collects payload, by `note`; whoever has many whole chunks to tell of appends to `chunks`, without a
    call."""

    __slots__ = ("_pieces", "_size", "chunks")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.chunks: deque[bytes] = deque(maxlen=_CHUNKS)
        """Chunks with their framing, which came after all that was noted."""
        self._size = 0

    def note(self, payload: bytes) -> None:
        """Another piece of the answer."""
        if self.chunks:
            self._take_apart()
        self._pieces.append(payload)
        self._size += len(payload)
        if self._size > LIMIT:
            kept = self._all()[-_KEPT:]
            self._pieces = [kept]
            self._size = len(kept)

    @property
    def between_events(self) -> bool:
        """What has passed ends with a whole event, or nothing has."""
        end = self._all()[-4:]
        return not end or end.endswith((b"\n\n", b"\n\r\n", b"\r\r"))

    @property
    def closes_json(self) -> bool:
        """The last byte could be the end of a JSON document."""
        return self._all().rstrip().endswith((b"}", b"]"))

    def has_end_mark(self, protocol: ApiProtocol, *, framed: bool) -> bool:
        """Whether the stream said that it is complete; *framed*: its framing has an end of its own."""
        tail = self._all()
        if tail.rstrip().endswith(b"[DONE]"):
            return True
        if protocol is ApiProtocol.ANTHROPIC:
            return b"message_stop" in tail
        if protocol is ApiProtocol.RESPONSES:
            # The last event repeats the whole answer and may be larger than what is kept here.
            return framed or _RESPONSES_END.search(tail) is not None
        return False

    def usage(self, *, events: bool) -> tuple[int, int]:
        """See `usage_in`."""
        return usage_in(self._all(), events=events)

    def _all(self) -> bytes:
        if self.chunks:
            self._take_apart()
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def _take_apart(self) -> None:
        """Make pieces of the chunks."""
        if len(self.chunks) == _CHUNKS:
            self._pieces.clear()  # what came between may have been dropped
        self._pieces += [chunk[chunk.index(b"\n") + 1 : -2] for chunk in self.chunks]
        self._size = sum(map(len, self._pieces))
        self.chunks.clear()


def usage_in(tail: bytes, *, events: bool) -> tuple[int, int]:
    """Tokens (prompt, completion) as the last of the *events*, or the document, that *tail* ends with tells;
    else zeros."""
    # Quotes inside JSON strings are escaped: these bytes can only be a key.
    at = tail.rfind(b'"usage"', max(0, len(tail) - _NEAR))
    if at < 0:
        at = tail.rfind(b'"usage"') if events else tail.find(b'"usage"')
        if at < 0:
            return 0, 0
    usual = _USUAL.match(tail, at)
    if usual is not None:
        return int(usual[1]), int(usual[2])
    prompt, completion = _PROMPT_TOKENS.search(tail, at), _COMPLETION_TOKENS.search(tail, at)
    return int(prompt[1]) if prompt else 0, int(completion[1]) if completion else 0
