"""Idle is what nobody uses, and what the engine itself calls idle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry.engine import BusyPage, ModelId
from supervisor.busyness import at_work
from tests.support.fakes import Fleet, make_model

A = ModelId("a")
PAGE = BusyPage("/metrics", ("vllm:num_requests_running", "vllm:num_requests_waiting"))


def fleet_that_can_be_asked(ttl: float = 60) -> Fleet:
    model = make_model("a", ttl=ttl)
    assert model.spec is not None
    fleet = Fleet((replace(model, spec=replace(model.spec, busy=PAGE)),))
    request = fleet.request("a")
    fleet.advance(5)
    request.done()
    return fleet


def test_an_engine_that_still_works_is_asked_once_and_gets_its_ttl_again() -> None:
    fleet = fleet_that_can_be_asked()
    fleet.fake.at_work[A] = 2
    fleet.advance(61)
    assert fleet.fake.asked == [A]
    assert fleet.state("a") == "ready"
    fleet.fake.at_work[A] = 0
    fleet.advance(50)
    assert fleet.fake.asked == [A]
    fleet.advance(15)
    assert fleet.fake.asked == [A, A]
    assert fleet.state("a") == "stopped"


def test_one_that_does_not_say_is_idle_when_nobody_uses_it() -> None:
    fleet = fleet_that_can_be_asked()
    fleet.fake.at_work[A] = None
    fleet.advance(61)
    assert fleet.state("a") == "stopped"


def test_a_request_that_comes_while_it_is_asked_keeps_it() -> None:
    fleet = fleet_that_can_be_asked()
    fleet.advance(59.995)
    while not fleet.fake.asked:
        fleet.advance(0.001)
    request = fleet.request("a")
    fleet.advance(1)
    assert fleet.state("a") == "ready"
    request.done()
    fleet.advance(59)
    assert fleet.state("a") == "ready"
    fleet.advance(2)
    assert fleet.state("a") == "stopped"


METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a"} 2.0
vllm:num_requests_running{engine="1",model_name="a"} 1.0
vllm:num_requests_waiting{engine="0",model_name="a"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:prompt_tokens_total{engine="0"} 1e6
"""


@pytest.mark.parametrize(
    ("text", "counts", "found"),
    [
        (METRICS, PAGE.counts, 3),
        (METRICS, ("vllm:num_requests_waiting",), 0),
        (METRICS, ("vllm:absent",), None),
        ("vllm:num_requests_running nonsense", PAGE.counts, None),
        ('{"status": "running", "num_running": 1, "num_waiting": 2}', ("num_running", "num_waiting"), 3),
        ('{"num_running": "many"}', ("num_running",), None),
        ("{broken", ("num_running",), None),
        ("", PAGE.counts, None),
    ],
)
def test_pages_are_read_by_name(text: str, counts: tuple[str, ...], found: int | None) -> None:
    assert at_work(text, counts) == found
