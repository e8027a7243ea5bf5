"""The real clock: the event loop's monotonic time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from supervisor.ports import Timer


class SystemClock:
    """`Clock` over a running event loop."""

    __slots__ = ("_loop", "now", "wall")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # The functions themselves: every request asks for the time.
        self.now: Callable[[], float] = loop.time
        self.wall: Callable[[], float] = time.time

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """A timer of the loop."""
        return self._loop.call_later(seconds, callback)
