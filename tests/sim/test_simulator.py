"""Seeded worlds under the real supervisor: no invariant breaks, and bugs that are put in are found.

A failure prints the seed and a trace that has been made small; `shrink(make_trace(SEED))` gets it back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest

from supervisor.errors import SupervisorError
from tests.sim.invariants import ViolationError
from tests.sim.seeded_bugs import ON_GPUS, SEEDED, applied
from tests.sim.shrink import shrink, violation_of
from tests.sim.simulation import Simulation
from tests.sim.trace import Trace, make_gpu_trace, make_trace

Maker = Callable[[int, float | None], Trace]

MILLION = 1_000_000
BUG_WITHIN = 100_000
SHORT = 15.0
"""Seconds of a world that is one of ten thousand."""


def run(seed: int, horizon: float | None = None, make: Maker = make_trace) -> int:
    """Events of the world that *make* makes of *seed*; a violation is raised with its small trace."""
    simulation = Simulation(make(seed, horizon))
    try:
        return simulation.run()
    except ViolationError as violation:
        small, said = shrink(make(seed, horizon))
        raise AssertionError(
            f"{make.__name__}, seed {seed}, horizon {horizon}: {violation}\nshrunk: {said}\n{small}"
        ) from None


def run_many(seeds: range, horizon: float | None = None, make: Maker = make_trace) -> int:
    """Events of all of them."""
    return sum(run(seed, horizon, make) for seed in seeds)


def run_both(seeds: range) -> int:
    """Events of both worlds of each."""
    return run_many(seeds) + run_many(seeds, make=make_gpu_trace)


def batches(size: int) -> Iterator[range]:
    first = 0
    while True:
        yield range(first, first + size)
        first += size


@pytest.mark.parametrize("seed", range(12))
def test_no_invariant_breaks(seed: int) -> None:
    assert run(seed) > 0


@pytest.mark.parametrize("seed", range(8))
def test_no_invariant_breaks_where_models_may_go_on_several_gpus(seed: int) -> None:
    assert run(seed, make=make_gpu_trace) > 0


@pytest.mark.parametrize(("seed", "horizon"), [(255, None), (1171, SHORT), (3512, SHORT), (6918, SHORT)])
def test_worlds_that_found_a_bug_once(seed: int, horizon: float | None) -> None:
    assert run(seed, horizon) > 0


def test_refusals_are_supervisor_errors_with_a_code() -> None:
    simulations = [Simulation(make_trace(seed)) for seed in range(4)]
    for simulation in simulations:
        simulation.run()
    errors = [error for simulation in simulations for error in simulation.errors]
    assert errors
    assert all(isinstance(error, SupervisorError) and error.code for error in errors)


def test_a_seed_is_a_world_for_ever() -> None:
    assert make_trace(5) == make_trace(5)
    assert str(make_trace(5)) != str(make_trace(6))
    assert run(5) == run(5)


def test_a_failing_trace_is_shrunk_to_what_it_takes() -> None:
    trace = make_trace(0)
    with applied(SEEDED["count one lease twice"]()):
        small, said = shrink(trace)
        assert violation_of(small) == said
    assert said.startswith("I8")
    assert len(trace.happenings) > 100
    assert len(small.happenings) <= 3, str(small)


@pytest.mark.simulation
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", SEEDED)
def test_a_seeded_bug_is_found(bug: str) -> None:
    events = 0
    with applied(SEEDED[bug]()):
        for seed in range(1000):
            simulation = Simulation(make_gpu_trace(seed) if bug in ON_GPUS else make_trace(seed))
            try:
                simulation.run()
            except (ViolationError, AssertionError):
                print(f"{bug}: found after {events + simulation.events} events")
                break
            finally:
                events += simulation.events
            assert events <= BUG_WITHIN, f"{bug}: not found within {events} events"
    assert events <= BUG_WITHIN


@pytest.mark.simulation
@pytest.mark.timeout(1200)
def test_a_million_events_break_no_invariant() -> None:
    events = 0
    workers = os.cpu_count() or 1
    # Processes that are spawned: a fork of pytest would have its threads' locks and none of its threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for round_ in batches(workers):
            events += sum(pool.map(run_both, [range(n * 10, n * 10 + 10) for n in round_]))
            if events >= MILLION:
                break
    print(f"{events} events")


@pytest.mark.simulation
@pytest.mark.timeout(1200)
def test_ten_thousand_short_worlds_are_never_over_committed() -> None:
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        events = sum(pool.map(run_many, [range(n, n + 250) for n in range(0, 10_000, 250)], [SHORT] * 40))
        gpus = pool.map(
            partial(run_many, horizon=SHORT, make=make_gpu_trace),
            [range(n, n + 250) for n in range(0, 2500, 250)],
        )
        events += sum(gpus)
    print(f"{events} events in 12500 worlds")
