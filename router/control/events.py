"""The supervisor's news for people and programs: the last ones kept, new ones as server-sent events.

Everything is bounded: the ring, the listeners, and what waits for each of them. A listener that does not keep
up is disconnected; it comes back with `Last-Event-ID` and gets what the ring still has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import msgspec

from router.errors import ControlBusyError
from supervisor.ports import Clock, SupervisorEvent, Timer

KEPT: Final = 256
"""Events in the ring: what a busy quarter of an hour brings forth, some 100 KB."""
MOST_LISTENERS: Final = 32
"""Each holds a connection to the control app; nobody watches with more programs than this."""
PENDING: Final = 256
"""Events that may wait for one listener: as many as a fresh one gets at once from the ring."""

PING: Final = b": still here\n\n"
"""A comment that keeps proxies from closing a quiet stream."""
PING_SECONDS: Final = 15.0
"""Proxies close quiet streams after 30 to 60 s."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event with its number, which only grows, and its bytes on the wire."""

    number: int
    event: SupervisorEvent
    frame: bytes


class Event(TypedDict):
    """Something that happened to a model, or that an operator asked for."""

    id: int
    """Only grows, until the daemon is restarted."""
    kind: str
    """`instance_ready`, `instance_failed`, `operator_asked` …"""
    model: str
    incarnation: int
    """Which process tree of the model; 0 before the first."""
    at: float
    """Unix seconds."""
    data: dict[str, Any]
    """Causes and numbers, by kind."""


def as_json(number: int, event: SupervisorEvent) -> Event:
    """The documented shape of an event."""
    return Event(
        id=number,
        kind=event.kind.value,
        model=event.model,
        incarnation=event.incarnation,
        at=event.at,
        data=dict(event.data),
    )


def _frame(number: int, event: SupervisorEvent) -> bytes:
    # `data` holds whatever the supervisor found worth telling; what JSON does not know is shown as text.
    body = msgspec.json.encode(as_json(number, event), enc_hook=str)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, event.kind.value.encode(), body)


class Subscription:
    """One listener's share. Close it when the listener goes."""

    def __init__(
        self, backlog: tuple[bytes, ...], on_slow: Callable[[], None], forget: Callable[[Subscription], None]
    ) -> None:
        self._frames: deque[bytes] = deque(backlog)
        self._news = asyncio.Event()
        if backlog:
            self._news.set()
        self._on_slow = on_slow
        self._forget = forget
        self._closed = False

    def offer(self, frame: bytes) -> None:
        """Queue *frame*; a listener that has `PENDING` waiting is cut off instead."""
        if self._closed:
            return
        if len(self._frames) >= PENDING:
            self.close()
            self._on_slow()
            return
        self._frames.append(frame)
        self._news.set()

    async def next(self) -> bytes | None:
        """The next frame, waiting for it; None once closed."""
        while not self._closed:
            if self._frames:
                return self._frames.popleft()
            self._news.clear()
            await self._news.wait()
        return None

    def close(self) -> None:
        """No more frames; `next` answers None. The second call does nothing."""
        if not self._closed:
            self._closed = True
            self._frames.clear()
            self._news.set()
            self._forget(self)


class EventRing:
    """The last `KEPT` events and who listens. Belongs to the event loop's thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beat: Timer | None = None
        self._ring: deque[Entry] = deque(maxlen=KEPT)
        self._number = 0
        self._listeners: set[Subscription] = set()

    def publish(self, event: SupervisorEvent) -> None:
        """Keep *event* and pass it on. Satisfies `supervisor.ports.EventSink`."""
        self._number += 1
        entry = Entry(self._number, event, _frame(self._number, event))
        self._ring.append(entry)
        for listener in tuple(self._listeners):
            listener.offer(entry.frame)

    def recent(self, count: int) -> list[Event]:
        """The last *count* events, newest first."""
        newest = list(self._ring)[-count:] if count else []
        return [as_json(entry.number, entry.event) for entry in reversed(newest)]

    def subscribe(self, *, after: int | None, on_slow: Callable[[], None]) -> Subscription:
        """Everything kept that is newer than number *after* (None: everything kept), then what comes.

        *on_slow* is called when the listener is cut off for not keeping up. Raises ControlBusyError when
        `MOST_LISTENERS` listen already.
        """
        if len(self._listeners) >= MOST_LISTENERS:
            raise ControlBusyError(
                f"{MOST_LISTENERS} programs follow /api/events already: close one of them, "
                "or read recent_events of /api/status instead"
            )
        # A number from before a restart of the daemon is larger than ours: such a listener has seen nothing.
        seen = 0 if after is None or after > self._number else after
        backlog = tuple(entry.frame for entry in self._ring if entry.number > seen)
        subscription = Subscription(backlog, on_slow, self._listeners.discard)
        self._listeners.add(subscription)
        if self._beat is None:
            self._beat = self._clock.call_later(PING_SECONDS, self._ping)
        return subscription

    def _ping(self) -> None:
        self._beat = None
        for listener in tuple(self._listeners):
            listener.offer(PING)
        if self._listeners:
            self._beat = self._clock.call_later(PING_SECONDS, self._ping)

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def close(self) -> None:
        """Send everybody home: the daemon is going."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        for listener in tuple(self._listeners):
            listener.close()
