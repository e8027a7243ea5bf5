"""How long a model stays after a request that says so."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from registry.engine import BusyPage, ModelId
from registry.model import Model
from supervisor.ports import EventKind
from tests.support.fakes import GIB, Fleet, Request, make_model

A = ModelId("a")


def loaded(*models: Model) -> tuple[Fleet, Request]:
    """A fleet of *models*, and a request that has a lease on the first."""
    fleet = Fleet(models)
    request = fleet.request(models[0].id)
    fleet.advance(5)
    assert request.lease is not None
    return fleet, request


def keeping(fleet: Fleet, request: Request, seconds: float) -> None:
    """Its request says so, and is answered."""
    assert request.lease is not None
    request.lease.keep(seconds)
    fleet.advance(1)
    request.done()


def test_it_goes_with_its_last_request() -> None:
    fleet, request = loaded(make_model("a", ttl=600))
    other = fleet.request("a")
    keeping(fleet, request, 0.0)
    fleet.advance(60)
    assert fleet.state("a") == "ready"  # the other one is still out
    other.done()
    fleet.advance(1)
    assert fleet.state("a") == "stopped"
    assert [event.data["ttl"] for event in fleet.fake.events if event.kind is EventKind.REAPED] == [0.0]


@pytest.mark.parametrize(("seconds", "ttl"), [(30.0, 600.0), (30.0, 0.0), (600.0, 60.0)])
def test_it_stays_as_long_as_was_asked_for_whatever_its_ttl(seconds: float, ttl: float) -> None:
    fleet, request = loaded(make_model("a", ttl=ttl))
    keeping(fleet, request, seconds)
    fleet.advance(seconds - 1)
    assert fleet.state("a") == "ready"
    fleet.advance(2)
    assert fleet.state("a") == "stopped"


def test_for_ever_is_for_ever_and_no_claim_on_the_memory() -> None:
    fleet, request = loaded(make_model("a", ttl=60, size=60 * GIB), make_model("b", size=60 * GIB))
    keeping(fleet, request, math.inf)
    fleet.advance(10_000)
    view = fleet.supervisor.instance(A)
    assert fleet.state("a") == "ready"
    assert view is not None
    assert view.keep_alive == -1
    other = fleet.request("b")
    fleet.advance(10)
    assert other.lease is not None


def test_the_last_one_who_says_so_counts_and_who_says_nothing_changes_nothing() -> None:
    fleet, request = loaded(make_model("a", ttl=600))
    keeping(fleet, request, 0.5)
    keeping(fleet, fleet.request("a"), 100.0)
    fleet.request("a").done()
    fleet.advance(99)
    assert fleet.state("a") == "ready"
    fleet.advance(2)
    assert fleet.state("a") == "stopped"


def test_the_next_incarnation_has_its_ttl_again() -> None:
    fleet, request = loaded(make_model("a", ttl=60))
    keeping(fleet, request, 0.0)
    fleet.advance(5)
    assert fleet.state("a") == "stopped"
    fleet.request("a")
    fleet.advance(5)
    view = fleet.supervisor.instance(A)
    assert view is not None
    assert view.keep_alive is None
    assert fleet.state("a") == "ready"


@pytest.mark.parametrize(("asked", "stays"), [(math.inf, 50.0), (100.0, 50.0), (20.0, 20.0)])
def test_the_operator_says_how_long_at_most(asked: float, stays: float) -> None:
    fleet, request = loaded(replace(make_model("a", ttl=600), ttl_max=50.0))
    keeping(fleet, request, asked)
    fleet.advance(stays - 1)
    assert fleet.state("a") == "ready"
    fleet.advance(2)
    assert fleet.state("a") == "stopped"


def test_a_pinned_one_stays() -> None:
    fleet, request = loaded(make_model("a", pin=True))
    keeping(fleet, request, 0.0)
    fleet.advance(100)
    assert fleet.state("a") == "ready"


def test_an_engine_that_is_still_at_work_is_asked_again_soon_and_not_without_end() -> None:
    model = make_model("a", ttl=600)
    assert model.spec is not None
    fleet, request = loaded(replace(model, spec=replace(model.spec, busy=BusyPage("/metrics", ("running",)))))
    fleet.fake.at_work[A] = 1
    keeping(fleet, request, 0.0)
    fleet.advance(10)
    assert fleet.state("a") == "ready"
    assert len(fleet.fake.asked) in (10, 11)
    fleet.fake.at_work[A] = 0
    fleet.advance(2)
    assert fleet.state("a") == "stopped"


def test_a_lease_that_was_given_back_says_nothing_any_more() -> None:
    fleet, request = loaded(make_model("a", ttl=600))
    request.done()
    assert request.lease is not None
    request.lease.keep(0.0)
    fleet.advance(100)
    assert fleet.state("a") == "ready"
