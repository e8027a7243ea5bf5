"""One coarse timer for every deadline of the front: writing a deadline down costs an attribute, not a
timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

TICK = 0.25
"""Seconds between two looks. A round over 4,096 connections takes some 0.2 ms."""

NEVER = float("inf")


class Watched(Protocol):
    """Something with a deadline on the front's clock; `NEVER` for none."""

    deadline: float

    def expired(self, now: float) -> None:
        """The deadline has passed. Sets a later one, or leaves the wheel."""
        ...


class Wheel:
    """Looks at everything it watches once per tick and tells those whose deadline has passed.

    `tick` may be called by hand: tests drive time that way. The timer only runs while something is watched.
    """

    __slots__ = ("_call_later", "_now", "_timer", "_watched")

    def __init__(
        self,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None,
    ) -> None:
        self._now = now
        self._call_later = call_later
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, item: Watched) -> None:
        """Look at *item* from now on."""
        self._watched.add(item)
        if self._timer is None and self._call_later is not None:
            self._timer = self._call_later(TICK, self._turn)

    def forget(self, item: Watched) -> None:
        """Look at it no more."""
        self._watched.discard(item)

    def tick(self) -> None:
        """One look at everything."""
        now = self._now()
        for item in [item for item in self._watched if item.deadline <= now]:
            item.expired(now)

    def close(self) -> None:
        """Stop the timer."""
        self._call_later = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        self._timer = None
        self.tick()
        if self._watched and self._call_later is not None:
            self._timer = self._call_later(TICK, self._turn)
