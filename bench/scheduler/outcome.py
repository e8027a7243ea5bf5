"""What a policy made of a trace, in figures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.scheduler.traces import Trace


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds where nothing else is said."""

    name: str
    mean: float
    p99: float
    longest: float
    late: int
    """Requests that waited longer than I5 allows, or were never served."""
    loads: int
    loading: float
    """That models spent loading, all together."""

    @property
    def starves(self) -> bool:
        """Somebody waited past the bound."""
        return self.late > 0


def outcome_of(
    name: str,
    trace: Trace,
    waits: Sequence[float | None],
    ahead: Sequence[int],
    *,
    loads: int,
    loading: float,
) -> Outcome:
    """*waits* by request: None was never served and counts until the trace's end. *ahead*: see `Trace`."""
    counted = [
        trace.end - at if wait is None else wait
        for wait, (at, _, _) in zip(waits, trace.arrivals, strict=True)
    ]
    late = sum(
        1
        for wait, before, served in zip(counted, ahead, waits, strict=True)
        if served is None or wait > trace.bound(before)
    )
    ordered = sorted(counted)
    return Outcome(
        name,
        mean=statistics.fmean(ordered),
        p99=ordered[int(len(ordered) * 0.99)],
        longest=ordered[-1],
        late=late,
        loads=loads,
        loading=loading,
    )
