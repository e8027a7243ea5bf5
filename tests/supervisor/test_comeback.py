"""`Retry-After`: by what was learned, by the engine's milestones, within bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.engine import ModelId
from supervisor.comeback import LEAST, MOST, Outlook, comes_back_in
from supervisor.lifecycle import State
from supervisor.policy import Policy
from supervisor.progress import Estimate
from tests.support.fakes import GIB, Fleet, Script, make_model

A = ModelId("a")
STARTING = Outlook(State.STARTING, load_seconds=30.0, elapsed=12.0)


@pytest.mark.parametrize(
    ("outlook", "seconds"),
    [
        (Outlook(State.STOPPED, 30.0), 30.0),
        (Outlook(State.STOPPED, 30.0, before=45.0), 75.0),
        (Outlook(State.DRAINING, 30.0), 30.0),
        (STARTING, 18.0),
        (replace(STARTING, estimate=Estimate(0.2, 50.0)), 50.0),
        (replace(STARTING, estimate=Estimate(0.75, None)), 4.0),
        (replace(STARTING, estimate=Estimate(0.01, None)), 18.0),
        (replace(STARTING, elapsed=60.0), 6.0),
        (replace(STARTING, estimate=Estimate(0.99, 0.0)), LEAST),
        (Outlook(State.READY, 30.0, rate=0.2), 5.0),
        (Outlook(State.READY, 30.0, rate=50.0), LEAST),
        (Outlook(State.READY, 30.0, rate=0.001), 60.0),
        (Outlook(State.READY, 30.0), LEAST),
        (Outlook(State.BACKOFF, 30.0, retry_in=8.0), 38.0),
        (Outlook(State.STOPPED, 5000.0), MOST),
    ],
)
def test_when_to_come_again(outlook: Outlook, seconds: float) -> None:
    assert comes_back_in(outlook) == pytest.approx(seconds)


times = st.floats(0, 1e7)


@given(
    st.builds(
        Outlook,
        state=st.sampled_from(State),
        load_seconds=times,
        elapsed=times,
        estimate=st.none() | st.builds(Estimate, done=st.floats(0, 0.99), left=st.none() | times),
        retry_in=st.none() | times,
        before=times,
        rate=st.floats(0, 1e6),
    )
)
def test_it_is_bounded_whatever_was_learned(outlook: Outlook) -> None:
    assert LEAST <= comes_back_in(outlook) <= MOST


def retry_after(fleet: Fleet, model: str) -> float:
    """What a request is told that finds the queue full."""
    refused = fleet.request(model)
    assert refused.error is not None
    assert refused.error.retry_after is not None
    return refused.error.retry_after


def test_a_full_queue_tells_what_is_left_by_the_milestones() -> None:
    fleet = Fleet((make_model("a"),), Policy(queue_per_model=1))
    lines = ("Loading weights: 50%",)
    fleet.fake.scripts[A] = [Script(ready_after=20.0, tail=lines), Script(ready_after=None, tail=lines)]
    fleet.request("a")
    instance = fleet.supervisor.instances[A]
    fleet.advance(4)
    instance.on_progress("loading")
    assert retry_after(fleet, "a") == pytest.approx(4.0, abs=0.1)  # half of it took four seconds
    fleet.advance(30)
    instance.stop(drain_grace=0)
    fleet.advance(60)
    fleet.request("a")
    fleet.advance(2)
    assert retry_after(fleet, "a") == pytest.approx(18.0, abs=0.5)  # it took 20 s the last time


def test_whoever_stands_behind_others_is_told_of_their_starts_too() -> None:
    models = tuple(make_model(name, size=60 * GIB) for name in "abc")
    fleet = Fleet(models, Policy(queue_per_model=1, max_parallel_starts=1))
    busy = fleet.request("a")
    fleet.advance(5)
    assert busy.lease is not None
    fleet.request("b")
    fleet.advance(1)
    fleet.request("c")
    alone, behind = retry_after(fleet, "b"), retry_after(fleet, "c")
    assert alone == pytest.approx(65.0)  # guessed: 5 s, and 60 GiB at 1 GiB a second
    assert behind == pytest.approx(130.0)


def test_a_client_that_waits_in_silence_is_told_what_is_known_and_nothing_that_is_guessed() -> None:
    fleet = Fleet((make_model("a"),))
    assert fleet.supervisor.ready_in(A) is None
    fleet.request("a")
    fleet.advance(1)
    assert fleet.supervisor.ready_in(A) is None
    fleet.advance(10)
    fleet.supervisor.instances[A].stop(drain_grace=0)
    fleet.advance(10)
    assert fleet.supervisor.ready_in(A) == pytest.approx(4.0, abs=0.1)
