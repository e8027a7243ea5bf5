"""Time that tests move."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class FakeTimer:
    """A timer of `FakeClock`."""

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget it."""
        self.callback = None


class FakeClock:
    """Time that moves when told, firing timers in order."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._heap: list[tuple[float, int, FakeTimer]] = []
        self._order = itertools.count()
        self.after_each: Callable[[], None] = lambda: None
        """Called after every timer that fired."""

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now

    def wall(self) -> float:
        """Unix seconds, at a fixed distance."""
        return self._now + 1.7e9

    def call_later(self, seconds: float, callback: Callable[[], None]) -> FakeTimer:
        """A timer."""
        timer = FakeTimer(self._now + max(seconds, 0.0), callback)
        heapq.heappush(self._heap, (timer.at, next(self._order), timer))
        return timer

    def advance(self, seconds: float = 0.0) -> None:
        """Move on, firing everything that becomes due, in order, also what those timers arm."""
        end = self._now + seconds
        fired = 0
        while self._heap and self._heap[0][0] <= end:
            at, _, timer = heapq.heappop(self._heap)
            self._now = max(self._now, at)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
                self.after_each()
                fired += 1
                assert fired < 100_000, "timers that re-arm themselves without end"
        self._now = end

    def lose_timers(self, seconds: float) -> None:
        """Move on and fire nothing: what was due in that time never comes."""
        self._now += seconds
        self._heap = [entry for entry in self._heap if entry[0] > self._now]
        heapq.heapify(self._heap)

    def next_timer(self) -> float | None:
        """Seconds until the next timer; None when there is none."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] - self._now if self._heap else None
