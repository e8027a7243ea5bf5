"""The model's name in the answer: the client sees the name it asked for. Pure.

Only for engines that answer under another name. Quotes inside JSON strings are escaped, so the bytes
`"model":"<served>"` can be nothing but a member of an object.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Protocol


class AnswerFilter(Protocol):
    """Changes an answer on its way to the client."""

    @property
    def whole(self) -> bool:
        """A JSON document must be read whole before any of it can be sent."""
        ...

    def feed(self, data: bytes) -> bytes:
        """What *data* of an event stream becomes, as far as that is certain."""
        ...

    def flush(self) -> bytes:
        """What was kept, at the end."""
        ...

    def replace_once(self, document: bytes) -> bytes | None:
        """What a JSON document (its beginning, if not `whole`) becomes; None where nothing changes."""
        ...


_BOUNDARY = re.compile(rb"\r?\n\r?\n")


@lru_cache(maxsize=256)
def _spellings(served: str) -> tuple[tuple[bytes, ...], re.Pattern[bytes]]:
    """How a JSON encoder may write the member; cached, since a compiled pattern costs more than a request."""
    names = {json.dumps(served).encode(), json.dumps(served, ensure_ascii=False).encode()}
    needles = tuple(b'"model":' + gap + name for name in sorted(names) for gap in (b"", b" "))
    return needles, re.compile(b"|".join(re.escape(n) for n in needles))


class ModelEcho:
    """Replaces the first `"model": "<served>"` of each event (or of the one JSON document) by the name asked
    for."""

    whole = False
    __slots__ = ("_held", "_longest", "_needle", "_needles", "_replacement", "_seen")

    def __init__(self, served: str, asked: str) -> None:
        self._needles, self._needle = _spellings(served)
        self._longest = max(len(n) for n in self._needles)
        self._replacement = b'"model":' + json.dumps(asked).encode()
        self._held = b""
        self._seen = False

    def feed(self, data: bytes) -> bytes:
        """*data* with the name replaced; bytes that may be the beginning of the name are kept for the next
        call."""
        if self._held:
            data = self._held + data
            self._held = b""
        out: list[bytes] = []
        start = 0
        while True:
            if self._seen:
                match = _BOUNDARY.search(data, start)
                if match is None:
                    # A boundary may be split: its first half stays.
                    keep = len(data) - len(data.rstrip(b"\r\n"))
                    cut = max(len(data) - keep, start)
                    break
                out.append(data[start : match.end()])
                start = match.end()
                self._seen = False
            match = self._needle.search(data, start)
            if match is None:
                cut = max(self._first_possible(data), start)
                break
            out += (data[start : match.start()], self._replacement)
            start = match.end()
            self._seen = True
        out.append(data[start:cut])
        self._held = data[cut:]
        return b"".join(out)

    def flush(self) -> bytes:
        """What was kept, at the end."""
        held, self._held = self._held, b""
        return held

    def replace_once(self, document: bytes) -> bytes | None:
        """*document* (its beginning) with the first name replaced; None if it is not there."""
        match = self._needle.search(document)
        if match is None:
            return None
        return document[: match.start()] + self._replacement + document[match.end() :]

    def _first_possible(self, data: bytes) -> int:
        """Where an incomplete needle at the end of *data* begins; its length if there is none."""
        pos = data.find(b'"', max(0, len(data) - self._longest + 1))
        while pos >= 0:
            tail = data[pos:]
            if any(n.startswith(tail) for n in self._needles):
                return pos
            pos = data.find(b'"', pos + 1)
        return len(data)
