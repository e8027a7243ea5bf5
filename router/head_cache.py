"""Heads seen before: a client, or an engine, says nearly the same thing with every message. Pure.

The key is the head's bytes without the digits of its Content-Length, so nothing else can differ between two
heads that share an entry. Parsing a head costs ten times what finding it here does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

ENTRIES = 256
"""Heads kept; all are dropped when there are more, which costs one parse each."""
LONGEST = 4096
"""Bytes of a head that is kept: with `ENTRIES`, a bound of 1 MiB."""

_FIELD = b"\ncontent-l"
_REST = b"ength: "
_DIGITS = 15
"""Of a Content-Length that is believed without a parser."""
_FOUND_WITHIN = _DIGITS + 1


Shape = tuple[bytes, int, bytes]
"""A head up to the digits of its Content-Length, how long that is, and what follows them: nothing, if the
head has none and the first part is all of it."""


class Parsed(Protocol):
    """A head, as far as the cache goes."""

    length: int | None
    shape: Shape | None
    """Set by the cache that keeps it."""

    @property
    def varies(self) -> bool:
        """It holds something that differs with every message: keeping it would only push others out."""
        ...


Head = TypeVar("Head", bound=Parsed)


def again(head: Parsed, data: bytes) -> tuple[int, int | None] | None:
    """Where the head that *data* begins with ends, and its own Content-Length, if it is *head* again; None
    if it is another, or not whole. Cheaper than `HeadCache.take` for whoever listens to one peer."""
    shape = head.shape
    if shape is None:
        return None
    before, start, after = shape
    if not data.startswith(before):
        return None
    if not after:
        return start, head.length
    stop = data.find(b"\r", start, start + _FOUND_WITHIN)
    digits = data[start:stop]
    if not data.startswith(after, stop) or not digits.isdigit():
        return None  # also where nothing was found: *after* is longer than the one byte at -1
    return stop + len(after), int(digits)


class HeadCache(Generic[Head]):
    """Parses through a memory. What `parse` returns is shared, so nobody may change it."""

    __slots__ = ("_known", "_parse")

    def __init__(self, parse: Callable[[bytes], Head]) -> None:
        self._parse = parse
        self._known: dict[bytes, Head] = {}

    def __len__(self) -> int:
        return len(self._known)

    def take(self, data: bytes, end: int) -> tuple[Head, int | None]:
        """The head that *data* begins with and that ends at *end*, and its own Content-Length. Raises what
        `parse` raises."""
        at = data.find(_REST, 0, end)
        if at < 0:
            whole = data[:end]
            head = self._known.get(whole) or self._learn(whole, whole, (whole, end, b""))
            return head, head.length
        at += len(_REST)
        after = data.find(b"\r", at)
        digits = data[at:after]
        if not digits.isdigit() or len(digits) > _DIGITS or data[at - 17 : at - 7].lower() != _FIELD:
            # Another field's name ends like this, or the value is odd: only a parser may judge.
            head = self._parse(data[:end])
            return head, head.length
        before, rest = data[:at], data[after:end]
        key = before + rest
        return self._known.get(key) or self._learn(key, data[:end], (before, at, rest)), int(digits)

    def _learn(self, key: bytes, data: bytes, shape: Shape) -> Head:
        head = self._parse(data)
        if len(key) <= LONGEST and not head.varies:
            if len(self._known) >= ENTRIES:
                self._known.clear()
            head.shape = shape
            self._known[key] = head
        return head
