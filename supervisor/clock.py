"""The real clock: the event loop's monotonic time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from supervisor.ports import Timer


class SystemClock:
    """`Clock` over a running event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        """Monotonic seconds."""
        return self._loop.time()

    def wall(self) -> float:
        """Unix seconds."""
        return time.time()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """A timer of the loop."""
        return self._loop.call_later(seconds, callback)
