"""Responses that engines keep: which incarnation has which, learned from the answers that pass. Pure.

`/v1/responses/{id}` names no model: only the engine that made a response has it. Nothing is started for one:
an engine that has ended has forgotten it.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from router.ports import Bytes, Holder, Refusal, Route
from router.refused import response_unknown
from router.relay import Relay

MOST_KEPT: Final = 10_000
"""Ids remembered, those not asked for longest forgotten first: about 3 MB. Engines keep them in memory with
their whole text, and a program that comes back for one does so within minutes."""
LOOKED_AT: Final = 16 * 1024
"""Bytes of an answer's beginning, head included, in which its id is looked for; engines write it first."""
_ID: Final = re.compile(rb'"id"\s*:\s*"(resp[_-][A-Za-z0-9._-]{1,122})"')
"""Quotes within a JSON string are escaped, so no text of a client's or a model's looks like this."""


class _Previous(msgspec.Struct, gc=False):
    previous_response_id: Any = None


_previous = msgspec.json.Decoder(_Previous).decode


@dataclass(frozen=True, slots=True)
class Kept:
    """Who has a response, and whose it is."""

    route: Route
    generation: int
    """Of the lease that it was made under."""
    name: str
    """What its model is called in it."""
    key: str
    """Name of the key that asked for it; empty: keys were off."""


class KeptResponses:
    """The memory. Belongs to the event loop's thread."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def note(self, response: str, kept: Kept) -> None:
        """*response* was made as *kept* says. Clients may choose ids: one that is another key's stays its."""
        before = self._kept.get(response)
        if before is not None and before.key != kept.key:
            return
        self._kept[response] = kept
        self._kept.move_to_end(response)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def objects_to(self, body: Bytes, holder: Holder) -> Refusal | None:
        """Why a request of *holder*'s with that body is refused: it goes on from a response that is another
        key's. One that nobody is known to have is the engine's to judge, and nobody guesses an id."""
        try:
            previous = _previous(body).previous_response_id
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None  # whoever reads the body says what is wrong with it
        if isinstance(previous, str) and previous in self._kept and self.find(previous, holder) is None:
            return response_unknown(previous)
        return None

    def find(self, response: str, holder: Holder | None) -> Kept | None:
        """Who has *response*; None if nobody is known to, or it is none of *holder*'s business: another
        key's, which only an administrator may see."""
        kept = self._kept.get(response)
        if kept is None or not (holder is None or holder.admin or holder.key == kept.key):
            return None
        self._kept.move_to_end(response)
        return kept


class ResponseRelay(Relay):
    """Passes an answer of `/v1/responses` on as any other; its id is remembered as soon as it is seen."""

    __slots__ = ("_looked", "_memory", "_what")

    _memory: KeptResponses | None
    """None once it was told."""

    def remember(self, memory: KeptResponses, what: Kept) -> None:
        """Tell *memory* the id with *what*. To be called before the first `feed`."""
        self._memory = memory
        self._what = what
        self._looked = b""

    def feed(self, data: bytes) -> bytes:
        """See `Relay`."""
        out = super().feed(data)
        if self._memory is not None:
            self._look(self._memory, data)
        return out

    def whole_chunks(self) -> deque[bytes] | None:
        """See `Relay`."""
        return super().whole_chunks() if self._memory is None else None

    def _look(self, memory: KeptResponses, data: bytes) -> None:
        looked = self._looked = self._looked + data[:LOOKED_AT]
        if self.head is None:
            return
        # An id that a chunk's end falls into is missed; engines write an event as one chunk.
        found = _ID.search(looked) if self.head.status == 200 else None
        if found is not None:
            memory.note(found[1].decode(), self._what)
        if found is not None or self.head.status != 200 or self.end is not None or len(looked) >= LOOKED_AT:
            self._memory = None
            self._looked = b""
