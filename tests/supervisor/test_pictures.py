"""Views of instances at rest are kept from one picture to the next, and are never out of date."""

from __future__ import annotations

from registry.engine import ModelId
from supervisor.policy import Policy
from supervisor.snapshot import instance_view
from tests.support.fakes import Fleet, Script, make_model

A, B = ModelId("a"), ModelId("b")


def assert_true(fleet: Fleet) -> None:
    supervisor = fleet.supervisor
    drawn = supervisor.view().instances
    assert drawn == tuple(instance_view(supervisor, supervisor.instances[view.model]) for view in drawn)
    assert [view.model for view in drawn] == sorted(supervisor.instances)


def test_a_picture_is_true_at_every_step_of_a_life() -> None:
    fleet = Fleet((make_model("a", ttl=60), make_model("b")), policy=Policy(crash_limit=2, crash_window=30))
    fleet.fake.scripts[B] = [Script(ready_after=None, exit_after=0.1)]
    supervisor = fleet.supervisor
    assert_true(fleet)
    request = fleet.request("a")
    assert_true(fleet)
    fleet.advance(5)
    assert_true(fleet)
    request.done()
    assert_true(fleet)
    fleet.advance(61)
    assert fleet.state("a") == "stopped"
    for _ in range(2):  # drawn, and kept
        assert_true(fleet)
    supervisor.pin(A, pinned=True)
    assert_true(fleet)
    supervisor.pin(A, pinned=False)
    assert_true(fleet)
    fleet.request("b")
    for _ in range(12):
        fleet.advance(0.5)
        assert_true(fleet)
    fleet.advance(300)
    assert_true(fleet)
    fleet.reload(make_model("a", ttl=7))
    fleet.advance(1)
    assert_true(fleet)
    assert {view.model: view.ttl for view in supervisor.view().instances}[A] == 7


def test_what_rests_is_drawn_once() -> None:
    fleet = Fleet((make_model("a"), make_model("b")))
    fleet.request("a")
    first, second = fleet.supervisor.view().instances, fleet.supervisor.view().instances
    assert first[1] is second[1]
    assert first[0] is not second[0]
