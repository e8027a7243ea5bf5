"""Victims and idleness, on tables."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from registry.engine import HOST, DeviceId, ModelId
from supervisor.demand import FADES_WITHIN, Demand
from supervisor.eviction import Candidate, choose_victims, shortage
from supervisor.lifecycle import State
from supervisor.policy import Policy, pause_after_crash
from supervisor.reaping import Idleness, Reaping, reap

GPU0 = DeviceId("gpu0")


def candidate(name: str, idle: float, *, cost: float = 0.0, **frees: int) -> Candidate:
    devices = {DeviceId(device): size for device, size in frees.items()}
    return Candidate(ModelId(name), devices, idle, cost=cost)


def names(victims: tuple[Candidate, ...] | None) -> list[str] | None:
    return None if victims is None else [victim.model for victim in victims]


def test_shortage_names_only_what_is_missing() -> None:
    assert shortage({HOST: 5, GPU0: 3}, {HOST: 7, GPU0: 1}) == {GPU0: 2}
    assert shortage({HOST: 5}, {}) == {HOST: 5}


def test_who_frees_nothing_that_is_missing_stays() -> None:
    found = choose_victims([candidate("cpu", 99, host=9), candidate("gpu", 1, gpu0=9)], {GPU0: 4})
    assert names(found) == ["gpu"]


def test_the_cheapest_per_byte_goes_first_and_among_equals_the_least_recently_used() -> None:
    dear, cheap = candidate("dear", 99, cost=20, host=10), candidate("cheap", 1, cost=1, host=10)
    assert names(choose_victims([dear, cheap], {HOST: 10})) == ["cheap"]
    assert names(choose_victims([dear, candidate("same", 100, cost=20, host=10)], {HOST: 10})) == ["same"]


def test_one_large_one_is_cheaper_than_several_small_ones_that_cost_more_together() -> None:
    small = [candidate(f"s{n}", 50, cost=4, host=4) for n in range(5)]
    large = candidate("large", 1, cost=15, host=12)
    assert names(choose_victims([*small, large], {HOST: 20})) == ["s0", "s1", "s2", "s3", "s4"]
    assert names(choose_victims([*small, large], {HOST: 12})) == ["s0", "s1", "s2"]
    assert names(choose_victims([*small, candidate("large", 1, cost=11, host=12)], {HOST: 12})) == ["large"]


def test_a_rate_fades_and_counts_what_came() -> None:
    demand = Demand(0.0)
    busy = demand.rate(10.0, 100)
    assert busy == 100 / FADES_WITHIN
    assert demand.rate(10.0, 100) == busy
    assert 0.36 * busy < demand.rate(10.0 + FADES_WITHIN, 100) < 0.37 * busy


def test_all_together_may_not_be_enough() -> None:
    assert choose_victims([candidate("a", 1, host=1), candidate("b", 2, host=1)], {HOST: 3}) is None


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6),
    st.integers(1, 12),
)
def test_victims_free_enough_and_none_of_them_is_needless(sizes: list[tuple[int, int]], need: int) -> None:
    candidates = [candidate(f"m{n}", idle, host=size) for n, (size, idle) in enumerate(sizes)]
    victims = choose_victims(candidates, {HOST: need})
    if victims is None:
        assert sum(size for size, _ in sizes) < need
        return
    total = sum(victim.frees[HOST] for victim in victims)
    assert total >= need
    assert all(total - victim.frees[HOST] < need for victim in victims)


def idleness(**over: object) -> Idleness:
    values: dict[str, object] = {
        "model": ModelId("m"),
        "state": State.READY,
        "leases": 0,
        "waiting": 0,
        "idle": 700.0,
        "stays": 600.0,
        "pinned": False,
    }
    return Idleness(**(values | over))  # type: ignore[arg-type]  # a table row as keywords


def test_idle_for_its_ttl_is_stopped() -> None:
    assert reap([idleness()]) == Reaping((ModelId("m"),), None)


def test_what_is_in_use_pinned_loading_or_eternal_is_not() -> None:
    for over in (
        {"leases": 1},
        {"waiting": 1},
        {"pinned": True},
        {"stays": math.inf},
        {"state": State.STARTING},
    ):
        assert reap([idleness(**over)]).stop == ()


def test_it_looks_again_when_the_next_may_be_due() -> None:
    found = reap([idleness(idle=100.0), idleness(idle=350.0), idleness(leases=2, stays=900.0)])
    assert found == Reaping((), 250.0)


def test_one_that_goes_with_its_last_request_is_not_looked_at_before() -> None:
    assert reap([idleness(stays=0.0, idle=0.0)]) == Reaping((ModelId("m"),), None)
    for use in ({"leases": 1}, {"waiting": 1}):
        assert reap([idleness(stays=0.0, idle=0.0, **use)]) == Reaping((), None)


def test_the_pause_after_a_failed_start_doubles_up_to_its_limit() -> None:
    pauses = [pause_after_crash(Policy(), crashes=n, proved=False, jitter=0) for n in range(1, 8)]
    assert pauses == [5, 10, 20, 40, 80, 120, 120]


def test_a_served_instance_comes_back_at_once_the_first_time() -> None:
    pauses = [pause_after_crash(Policy(), crashes=n, proved=True, jitter=0) for n in range(1, 4)]
    assert pauses == [0, 5, 10]


def test_jitter_only_stretches() -> None:
    assert pause_after_crash(Policy(), crashes=1, proved=False, jitter=0.5) == 5.5
