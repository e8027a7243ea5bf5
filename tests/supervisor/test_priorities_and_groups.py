"""Who goes first, who may be loaded beside whom, and when those who are sent away should come back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry.engine import ModelId
from registry.model import Model
from supervisor.errors import ModelTooLargeError, QueueFullError, WaitTimeoutError
from supervisor.policy import Policy
from tests.support.fakes import GIB, FakeWorld, Fleet, Script, make_model

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")


def ruled(name: str, size: int = 4, **rules: object) -> Model:
    return replace(make_model(name, size=size * GIB), **rules)  # type: ignore[arg-type]  # fields of Model


def loaded(fleet: Fleet, name: str) -> None:
    request = fleet.request(name)
    fleet.advance(15)
    request.done()


def test_of_models_that_are_waited_for_the_higher_priority_is_started_first() -> None:
    models = (ruled("a", 15), ruled("b", 15), ruled("c", 15, priority=5))
    fleet = Fleet(models, fake=FakeWorld(budget=20 * GIB))
    held = fleet.request("a")
    fleet.advance(15)
    first, second = fleet.request("b"), fleet.request("c")
    fleet.advance(1)
    held.done()
    fleet.advance(8)
    assert second.lease is not None
    assert first.open


def test_a_priority_never_goes_before_somebody_who_has_waited_for_max_wait() -> None:
    models = (ruled("a", 15), ruled("b", 15), ruled("c", 15, priority=100))
    fleet = Fleet(models, Policy(max_wait=10), FakeWorld(budget=20 * GIB))
    held = fleet.request("a")
    fleet.advance(5)
    first = fleet.request("b")
    fleet.advance(10.5)
    fleet.request("c")
    held.done()
    fleet.advance(6)
    assert first.lease is not None


def test_of_those_who_wait_for_one_model_the_higher_key_is_served_first_until_others_are_overdue() -> None:
    fleet = Fleet((replace(make_model("a"), concurrency=1),), Policy(max_wait=10))
    holder = fleet.request("a")
    fleet.advance(5)
    low, high, higher = (fleet.request("a", priority=priority) for priority in (0, 5, 9))
    holder.done()
    assert higher.lease is not None
    fleet.advance(11)
    late = fleet.request("a", priority=9)
    higher.done()
    assert high.lease is not None
    high.done()
    assert low.lease is not None, "it is overdue: who comes now stands behind it"
    low.done()
    assert late.lease is not None


def test_a_keys_priority_counts_for_the_model_it_waits_for() -> None:
    models = (ruled("a", 15), ruled("b", 15), ruled("c", 15))
    fleet = Fleet(models, fake=FakeWorld(budget=20 * GIB))
    held = fleet.request("a")
    fleet.advance(15)
    fleet.request("b")
    favoured = fleet.request("c", priority=1)
    held.done()
    fleet.advance(8)
    assert favoured.lease is not None


def test_at_most_one_of_a_group_is_loaded_and_others_are_not_concerned() -> None:
    models = (ruled("a", group="g"), ruled("b", group="g"), ruled("c"))
    fleet = Fleet(models, fake=FakeWorld(budget=100 * GIB))
    loaded(fleet, "a")
    loaded(fleet, "c")
    second = fleet.request("b")
    fleet.advance(8)
    assert second.lease is not None
    assert [fleet.state(name) for name in "abc"] == ["stopped", "ready", "ready"]
    assert fleet.supervisor.instances[B].reserved == {"host": 4 * GIB}
    assert fleet.supervisor.view().devices[0].reserved_bytes == 8 * GIB


def test_nothing_is_loaded_beside_an_exclusive_model() -> None:
    models = (ruled("a"), ruled("b"), ruled("c", exclusive=True))
    fleet = Fleet(models, fake=FakeWorld(budget=100 * GIB))
    loaded(fleet, "a")
    loaded(fleet, "b")
    alone = fleet.request("c")
    fleet.advance(8)
    assert alone.lease is not None
    assert [fleet.state(name) for name in "abc"] == ["stopped", "stopped", "ready"]
    beside = fleet.request("a")
    fleet.advance(5)
    assert beside.open
    alone.done()
    fleet.advance(12)
    assert beside.lease is not None


def test_a_pinned_one_of_the_group_is_said() -> None:
    models = (replace(ruled("a", group="g"), pin=True), ruled("b", group="g"))
    fleet = Fleet(models, fake=FakeWorld(budget=100 * GIB))
    loaded(fleet, "a")
    refused = fleet.request("b")
    fleet.advance(1)
    assert isinstance(refused.error, ModelTooLargeError)
    assert str(refused.error) == (
        "b may not be loaded beside a, which is pinned; `modelyard unpin` lets go of it"
    )


@pytest.mark.parametrize("learned", [False, True])
def test_who_is_sent_away_is_told_to_come_back_when_a_start_will_be_over(learned: bool) -> None:
    fleet = Fleet((make_model("a", size=10 * GIB),), Policy(queue_per_model=1))
    fleet.fake.scripts[A] = [Script(ready_after=39.99)]
    if learned:
        fleet.request("a")
        fleet.advance(50)
        fleet.supervisor.instances[A].stop(drain_grace=0)
        fleet.advance(30)
    fleet.request("a")
    fleet.advance(10)
    refused = fleet.request("a")
    assert isinstance(refused.error, QueueFullError)
    assert refused.error.retry_after == pytest.approx(30.0 if learned else 5.0)  # guessed: 5 s and 1 GiB/s


def test_a_wait_that_is_over_says_when_to_come_back() -> None:
    fleet = Fleet((make_model("a"),))
    fleet.fake.scripts[A] = [Script(ready_after=100)]
    waits = fleet.request("a", timeout=5)
    fleet.advance(6)
    assert isinstance(waits.error, WaitTimeoutError)
    assert waits.error.retry_after == pytest.approx(10.0)
