"""Answers without an end of their own (events, a fresh status, a growing log): bounded, and ended together.

When the daemon stops, the front lets answers in flight end first. These never would, so `Streams.close` ends
them at once instead of holding up the stop for its whole grace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from router.errors import ControlBusyError
from supervisor.ports import Clock

MOST_STREAMS: Final = 64
"""Open at once, of all kinds together: a quarter of the control app's connections, so that open pages never
keep a short question out."""


class Turn:
    """One stream's waits, which `end` cuts short."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._over = False
        self._wake: asyncio.Future[None] | None = None

    async def pause(self, seconds: float) -> bool:
        """Let *seconds* pass. False, at once, when the stream is to end."""
        if self._over:
            return False
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wake = wake
        timer = self._clock.call_later(seconds, lambda: None if wake.done() else wake.set_result(None))
        try:
            await wake
        finally:
            timer.cancel()
            self._wake = None
        return not self._over

    def end(self) -> None:
        """No further turn."""
        self._over = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Streams:
    """The open-ended answers of one control app. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._ends: dict[object, Callable[[], None]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._ends)

    @contextmanager
    def open(self, end: Callable[[], None]) -> Iterator[None]:
        """Hold a place for the block; *end* is called when the daemon stops. Raises ControlBusyError."""
        if self._closed:
            raise ControlBusyError("the daemon is stopping: nothing can be followed any more")
        if len(self._ends) >= MOST_STREAMS:
            raise ControlBusyError(
                f"{MOST_STREAMS} programs and pages follow this daemon already: close some of them"
            )
        place = object()
        self._ends[place] = end
        try:
            yield
        finally:
            self._ends.pop(place, None)

    def close(self) -> None:
        """End them all, and let none begin any more. The second call does nothing."""
        self._closed = True
        for end in tuple(self._ends.values()):
            end()


STREAMS: Final = web.AppKey("streams", Streams)
"""Where the app keeps them, for the door to end."""
