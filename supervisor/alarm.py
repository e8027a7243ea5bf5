"""A timer that is set again and again, and is never two."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.ports import Clock, Timer


class Alarm:
    """Calls *ring* once when the time it was set for last is over, unless it was called off."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._timer: Timer | None = None

    def set(self, seconds: float) -> None:
        """Ring *seconds* from now, and not when it was set for before."""
        self.call_off()
        self._timer = self._clock.call_later(seconds, self._due)

    def call_off(self) -> None:
        """Do not ring; harmless when it is not set."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        self._ring()
