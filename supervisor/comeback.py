"""When another try makes sense for a request that is sent away: `Retry-After`. Pure: no clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from supervisor.lifecycle import State
from supervisor.progress import Estimate

LEAST: Final = 1.0
"""Seconds: `Retry-After` has no fractions, and who comes at once is refused again."""
MOST: Final = 600.0
"""As long as a request may wait by itself (`admission.request_timeout`): later than that is a guess."""
LONGEST_FOR_A_PLACE: Final = 60.0
"""Of a model that runs: how often it is asked lately says little about a pause."""
OVERRUN: Final = 0.1
"""A start that takes longer than it ever did is thought to be over after so much of that again."""
SHARE_COUNTS: Final = 0.05
"""Of a stage; what its first percents took says nothing of the rest."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How a model stands that somebody is sent away from. Seconds."""

    state: State
    load_seconds: float
    """What a start takes, as learned or guessed."""
    elapsed: float = 0.0
    """Since its start began."""
    estimate: Estimate | None = None
    """How far that is, by the engine's milestones and what earlier starts taught of them."""
    retry_in: float | None = None
    """Until it is tried again after a crash."""
    before: float = 0.0
    """What the starts of those take that come before it."""
    rate: float = 0.0
    """Requests a second that it has served lately."""


def comes_back_in(outlook: Outlook) -> float:
    """Seconds until another try is likely to be served; between `LEAST` and `MOST`."""
    return min(max(_seconds(outlook), LEAST), MOST)


def _seconds(outlook: Outlook) -> float:
    match outlook.state:
        case State.READY:
            # All its slots are taken: one is free as often as one was given lately.
            return min(1 / outlook.rate, LONGEST_FOR_A_PLACE) if outlook.rate else LEAST
        case State.STARTING:
            return _left(outlook)
        case State.BACKOFF | State.FAILED:
            return (outlook.retry_in or 0.0) + outlook.load_seconds
        case _:
            return outlook.before + outlook.load_seconds


def _left(outlook: Outlook) -> float:
    estimate, elapsed = outlook.estimate, outlook.elapsed
    if estimate is not None and estimate.left is not None:
        return estimate.left
    if estimate is not None and estimate.done >= SHARE_COUNTS:
        # Never seen before, but the engine says what share is done: the rest at the same pace.
        return elapsed / estimate.done - elapsed
    return max(outlook.load_seconds - elapsed, OVERRUN * elapsed)
