"""Which instances have been idle for too long. Pure: no clock, no I/O, no log."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from registry.engine import ModelId
from supervisor.lifecycle import State


@dataclass(frozen=True, slots=True)
class Idleness:
    """What reaping needs to know of one instance."""

    model: ModelId
    state: State
    leases: int
    waiting: int
    idle: float
    """Seconds since it became ready or its last lease ended, whichever is later."""
    stays: float
    """Seconds that it may be idle: its `ttl`, or what a request asked for; inf: for ever."""
    pinned: bool


@dataclass(frozen=True, slots=True)
class Reaping:
    """Whom to stop now, and when to look again (None: only after news)."""

    stop: tuple[ModelId, ...] = ()
    look_again_in: float | None = None


def reap(instances: Iterable[Idleness]) -> Reaping:
    """Idle is true idleness: ready, no lease, nobody waiting, for as long as it stays. Starting is never
    idle."""
    stop: list[ModelId] = []
    look_again: float | None = None
    for one in instances:
        if one.stays == math.inf or one.pinned or one.state is not State.READY:
            continue
        in_use = one.leases or one.waiting
        if in_use and not one.stays:
            continue  # whoever asked for that is followed by a look when the last lease is back
        # In use: look again no sooner than it could be idle for long enough. So nobody has to tell the
        # reaper of every lease that comes back.
        left = one.stays if in_use else one.stays - one.idle
        if left <= 0:
            stop.append(one.model)
        elif look_again is None or left < look_again:
            look_again = left
    # Never zero: a timer that fires a hair too early would spin.
    return Reaping(tuple(stop), None if look_again is None else max(look_again, 0.01))
