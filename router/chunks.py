"""The chunked transfer coding, followed without re-framing: where chunks end, and what is in them. Pure."""

from __future__ import annotations

import re

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_LINE_LIMIT = 1024
"""Bytes of one size line with its extensions; nobody sends extensions, and a line without an end is an
attack."""
_TRAILER_LIMIT = 8192
"""Bytes of all trailer fields; they are dropped."""
_TRAILERS = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)+\r\n")
"""What is dropped must be fields: another reader could find the beginning of a request in it."""

LAST_CHUNK = b"0\r\n\r\n"

_LISTED = 2048
"""Bytes: nearly every event of a stream of tokens is shorter."""


def _line_of(whole: int) -> bytes:
    """The size line of the one chunk that is *whole* bytes long, framing included, and written in the usual
    way; something that no chunk of that length begins with where there is none."""
    for digits in range(1, 5):
        size = whole - digits - 4
        if size > 0 and len(b"%x" % size) == digits:
            return b"%x\r\n" % size
    return b"\r" * (whole + 1)


SIZE_LINES = tuple(_line_of(whole) for whole in range(_LISTED))
"""By the length of a whole chunk: its size line."""


class FramingError(Exception):
    """The bytes are not chunked framing; the message says what is wrong."""


def chunk(data: bytes) -> bytes:
    """*data*, which must not be empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkScanner:
    """Follows a chunked body through any split of its bytes.

    `feed` returns the bytes that may be passed on as they are: whole size lines and chunk data. A size line
    that is not complete is held back, so that between two calls the receiver is either inside a chunk or
    exactly between two; the last chunk and the trailers are never passed on, so that the end is the caller's
    to write.
    """

    __slots__ = ("_held", "_left", "ended", "fresh", "rest")

    def __init__(self) -> None:
        self.fresh = True
        """What comes next begins a chunk: whoever can see that it is exactly one whole chunk need not `feed`
        it."""
        self._left = 0
        """Bytes of the current chunk still to come, its CRLF included."""
        self._held = b""
        self.ended = False
        self.rest = b""
        """Bytes after the end of the body, once `ended`."""

    @property
    def between_chunks(self) -> bool:
        """What was passed on so far ends with a whole chunk."""
        return self._left == 0

    def feed(self, data: bytes, payload: list[bytes]) -> bytes:
        """Take *data*, append what the chunks contain to *payload*. Raises `FramingError`."""
        self.fresh = False
        if self._held:
            data = self._held + data
            self._held = b""
        pos, end, left = 0, len(data), self._left
        while pos < end:
            if not left:
                match = _SIZE_LINE.match(data, pos)
                if match is None:
                    return self._hold_line(data, pos)
                size = int(match[1], 16)
                if size == 0:
                    return self._finish(data, pos, match.end())
                pos = match.end()
                left = size + 2
                continue
            stop = pos + left
            if stop > end:
                self._part(data, pos, left, payload)
                return data
            if left > 2:
                payload.append(data[pos : stop - 2])
                if data[stop - 2 : stop] != b"\r\n":
                    raise FramingError("a chunk is longer than its size")
            elif data[pos:stop] != b"\r\n"[-left:]:
                raise FramingError("a chunk is longer than its size")
            pos, left = stop, 0
        self._left = left
        self.fresh = not left
        return data

    def _part(self, data: bytes, pos: int, left: int, payload: list[bytes]) -> None:
        """The chunk goes on after *data*."""
        end = len(data)
        content = min(pos + left - 2, end)
        if content > pos:
            payload.append(data[pos:content])
        else:
            content = pos
        if content < end and data[content:end] != b"\r":
            raise FramingError("a chunk is longer than its size")
        self._left = left - (end - pos)

    def _hold_line(self, data: bytes, pos: int) -> bytes:
        self._left = 0
        line = data[pos:]
        newline = line.find(b"\n")
        if newline >= 0 or len(line) > _LINE_LIMIT:
            raise FramingError("a chunk size is malformed")
        if not line[:1].isalnum() and line:
            raise FramingError("a chunk size is malformed")
        self._held = line
        return data[:pos]

    def _finish(self, data: bytes, start: int, after: int) -> bytes:
        """The last chunk starts at *start*, its size line ends at *after*; trailers may follow."""
        self._left = 0
        if data.startswith(b"\r\n", after):
            end = after + 2
        else:
            found = data.find(b"\r\n\r\n", after)
            if found < 0 or found - after > _TRAILER_LIMIT:
                if len(data) - after > _TRAILER_LIMIT:
                    raise FramingError("the trailer fields are too long")
                self._held = data[start:]
                return data[:start]
            end = found + 4
            if _TRAILERS.fullmatch(data, after, end) is None:
                raise FramingError("a trailer field is malformed")
        self.ended = True
        self.rest = data[end:]
        return data[:start]
