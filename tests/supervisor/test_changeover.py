"""A reload under a fleet that serves: only what has changed is touched, and what fails is put back."""

from __future__ import annotations

import asyncio

import pytest

from registry.engine import ModelId
from registry.model import Model
from supervisor.changeover import Changeover, Outcome
from supervisor.errors import ModelFailedError, StoppingError
from supervisor.policy import Policy
from supervisor.ports import EventKind
from tests.support.fakes import GIB, FakeWorld, Fleet, Script, make_model

A, B = ModelId("a"), ModelId("b")
OTHER = ("engine", "--other", "{port}")
GOOD, BAD = Script(ready_after=1.0), Script(ready_after=None, exit_after=0.2, tail=("no such flag",))


def serving(*models: Model, fake: FakeWorld | None = None, policy: Policy | None = None) -> Fleet:
    """A fleet in which all of them are ready."""
    fleet = Fleet(models, fake=fake or FakeWorld(), policy=policy or Policy())
    for model in models:
        request = fleet.request(model.id)
        fleet.advance(10)
        request.done()
    return fleet


def changed(name: str = "a", **keys: object) -> Model:
    """The model, launched otherwise."""
    return make_model(name, argv=OTHER, **keys)  # type: ignore[arg-type]


def scripted(fleet: Fleet, *scripts: Script) -> None:
    """What the next launches of `a` do."""
    fleet.fake.scripts[A] = list(scripts)


def rolled_back(fleet: Fleet) -> list[str]:
    """Causes, as they were told."""
    return [str(event.data["cause"]) for event in fleet.fake.events if event.kind is EventKind.ROLLED_BACK]


def launched(fleet: Fleet) -> tuple[str, ...]:
    """How the running tree of `a` was launched."""
    spec = fleet.supervisor.instances[A].spec
    assert spec is not None
    return spec.argv


def test_a_changed_model_is_drained_and_restarted_while_others_keep_their_trees_and_requests() -> None:
    fleet = serving(make_model("a"), make_model("b"))
    streaming, other = fleet.request("a"), fleet.request("b")
    tree = fleet.child("b")
    changeover = fleet.reload(changed(), make_model("b"))[A]
    assert fleet.state("a") == "draining"
    waiting = fleet.request("a")
    fleet.advance(30)
    assert fleet.state("a") == "draining"
    assert not changeover.done
    streaming.done()
    fleet.advance(10)
    assert changeover.outcome is Outcome.RESTARTED
    assert waiting.lease is not None
    assert launched(fleet) == OTHER
    assert fleet.child("b") is tree
    assert other.lease is not None
    assert fleet.fake.transcript.count("launch b/1") == 1
    assert [event.model for event in fleet.fake.events if event.kind is EventKind.REDEFINED] == [A]


def test_it_restarts_although_nobody_asks_for_it() -> None:
    fleet = serving(make_model("a"))
    changeover = fleet.reload(changed())[A]
    fleet.advance(10)
    assert (fleet.state("a"), changeover.outcome) == ("ready", Outcome.RESTARTED)
    assert fleet.supervisor.pool.waiting == 0


@pytest.mark.parametrize(
    "broken",
    [BAD, Script(not_ready_after=2.0), Script(spawn_fails="no such program")],
    ids=["exits", "stalls", "does not spawn"],
)
def test_one_that_does_not_become_ready_is_put_back_and_whoever_waits_is_served(broken: Script) -> None:
    fleet = serving(make_model("a"))
    scripted(fleet, broken, GOOD)
    changeover = fleet.reload(changed())[A]
    waiting = fleet.request("a")
    fleet.advance(20)
    assert changeover.outcome is Outcome.ROLLED_BACK
    assert waiting.lease is not None
    assert launched(fleet) == ("engine", "{port}")
    assert rolled_back(fleet) == [changeover.cause]
    assert changeover.cause in fleet.supervisor.changeovers.rejected[A].cause
    assert fleet.supervisor.instances[A].crashes.count(fleet.fake.clock.now()) == 0


def test_put_back_out_of_a_crash_loop_of_one() -> None:
    fleet = serving(make_model("a"), policy=Policy(crash_limit=1))
    scripted(fleet, BAD, GOOD)
    changeover = fleet.reload(changed())[A]
    fleet.advance(20)
    assert (fleet.state("a"), changeover.outcome) == ("ready", Outcome.ROLLED_BACK)


def test_when_the_old_definition_fails_as_well_everybody_learns_why() -> None:
    fleet = serving(make_model("a"))
    scripted(fleet, BAD)
    changeover = fleet.reload(changed())[A]
    waiting = fleet.request("a")
    fleet.advance(3)
    assert isinstance(waiting.error, ModelFailedError)
    assert changeover.outcome is Outcome.NOT_STARTED
    assert "no such flag" in changeover.cause


def test_what_was_rolled_back_is_not_tried_again_until_it_changes_or_somebody_says_so() -> None:
    fleet = serving(make_model("a"))
    scripted(fleet, BAD, GOOD)
    fleet.reload(changed())
    fleet.advance(20)
    spawns = fleet.fake.spawns
    assert fleet.reload(changed(), retry=False) == {}
    assert fleet.fake.spawns == spawns
    assert len(rolled_back(fleet)) == 1, "said once"
    assert fleet.reload(changed(), retry=True)[A]
    fleet.advance(20)
    assert (fleet.state("a"), launched(fleet)) == ("ready", OTHER)
    assert A not in fleet.supervisor.changeovers.rejected


def test_what_can_never_fit_stops_nothing() -> None:
    fleet = serving(make_model("a", size=10 * GIB))
    tree = fleet.child("a")
    assert fleet.reload(changed(size=101 * GIB)) == {}
    fleet.advance(10)
    assert fleet.child("a") is tree
    assert "budget is 100.0 GiB" in rolled_back(fleet)[0]


def test_a_model_that_grows_stops_no_other_until_somebody_asks_for_it() -> None:
    fleet = serving(make_model("a", size=40 * GIB), make_model("b", size=40 * GIB))
    changeover = fleet.reload(changed(size=70 * GIB), make_model("b", size=40 * GIB))[A]
    fleet.advance(59)
    assert not changeover.done
    fleet.advance(2)
    assert changeover.outcome is Outcome.NOT_STARTED
    assert "no room for a within 60 s" in changeover.cause
    assert (fleet.state("a"), fleet.state("b")) == ("stopped", "ready")
    request = fleet.request("a")
    fleet.advance(30)
    assert request.lease is not None


def test_a_change_that_a_running_tree_does_not_notice_is_in_force_at_once() -> None:
    fleet = serving(make_model("a"))
    tree = fleet.child("a")
    assert fleet.reload(make_model("a", ttl=7.0, concurrency=3)) == {}
    assert fleet.child("a") is tree
    assert fleet.supervisor.instances[A].model.ttl == 7.0


def test_a_changed_model_that_does_not_run_is_launched_so_the_next_time_and_its_crashes_are_forgotten() -> (
    None
):
    fleet = Fleet((make_model("a"),))
    scripted(fleet, BAD, GOOD)
    assert fleet.request("a").open
    fleet.advance(1)
    assert fleet.state("a") == "backoff"
    assert fleet.reload(changed()) == {}
    assert fleet.state("a") == "stopped"
    request = fleet.request("a")
    fleet.advance(5)
    assert request.lease is not None


def test_changed_again_before_the_first_change_is_through_it_goes_back_to_what_served_last() -> None:
    fleet = serving(make_model("a"))
    scripted(fleet, Script(ready_after=50.0), BAD, GOOD)
    first: Changeover = fleet.reload(changed())[A]
    fleet.advance(5)
    assert fleet.state("a") == "starting"
    second = fleet.reload(make_model("a", argv=("engine", "--third", "{port}")))[A]
    fleet.advance(20)
    assert first.outcome is Outcome.NOT_STARTED
    assert second.outcome is Outcome.ROLLED_BACK
    assert launched(fleet) == ("engine", "{port}")


def test_changed_back_while_it_drains_it_serves_as_before() -> None:
    fleet = serving(make_model("a"))
    streaming = fleet.request("a")
    fleet.reload(changed())
    fleet.reload(make_model("a"))
    streaming.done()
    fleet.advance(10)
    assert (fleet.state("a"), launched(fleet)) == ("ready", ("engine", "{port}"))


def test_an_operator_who_unloads_it_meanwhile_is_obeyed() -> None:
    fleet = serving(make_model("a"))
    streaming = fleet.request("a")
    changeover = fleet.reload(changed())[A]

    async def unload() -> None:
        unloading = asyncio.get_running_loop().create_task(fleet.supervisor.unload(A))
        await asyncio.wait([unloading], timeout=0)
        streaming.done()
        fleet.advance(10)
        await unloading

    asyncio.run(unload())
    fleet.advance(10)
    assert (fleet.state("a"), changeover.outcome) == ("stopped", Outcome.NOT_STARTED)


def test_removed_while_it_changes_it_goes() -> None:
    fleet = serving(make_model("a"), make_model("b"))
    changeover = fleet.reload(changed(), make_model("b"))[A]
    waiting = fleet.request("a")
    fleet.reload(make_model("b"))
    fleet.advance(10)
    assert isinstance(waiting.error, StoppingError)
    assert changeover.outcome is Outcome.NOT_STARTED
    assert A not in fleet.supervisor.instances
    assert fleet.fake.ports_out == {fleet.child("b").record.port}


def test_a_full_queue_starts_it_as_well() -> None:
    fleet = serving(make_model("a"), policy=Policy(queue_per_model=1))
    streaming = fleet.request("a")
    changeover = fleet.reload(changed())[A]
    waiting = fleet.request("a")
    streaming.done()
    fleet.advance(10)
    assert waiting.lease is not None
    assert changeover.outcome is Outcome.RESTARTED
