"""Makes a failing trace small: delta debugging over its happenings, then over its models' oddities."""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.invariants import ViolationError
from tests.sim.simulation import Simulation
from tests.sim.trace import Happening, Trace

TRIES = 400
"""Runs that shrinking may take: a trace half as long is half as long to run, so this is seconds."""


def violation_of(trace: Trace) -> str | None:
    """What *trace* breaks; None when all is well."""
    try:
        Simulation(trace).run()
    except ViolationError as violation:
        return str(violation)
    return None


def shrink(trace: Trace, breaks: Callable[[Trace], str | None] = violation_of) -> tuple[Trace, str]:
    """(the smallest trace found that breaks the same invariant, how it breaks it)."""
    said = breaks(trace)
    assert said is not None, "nothing to shrink"
    number = said.split(":")[0]
    tries = TRIES
    chunk = max(len(trace.happenings) // 2, 1)
    while chunk and tries > 0:
        position, removed = 0, False
        while position < len(trace.happenings) and tries > 0:
            kept: tuple[Happening, ...] = trace.happenings[:position] + trace.happenings[position + chunk :]
            tries -= 1
            smaller = trace.with_happenings(kept)
            found = breaks(smaller)
            if found is not None and found.split(":")[0] == number:
                trace, said, removed = smaller, found, True
            else:
                position += chunk
        if not removed:
            chunk //= 2
    return trace, said
