"""When no load could make progress, and what the scheduler does about a fault of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.engine import HOST, DeviceId, ModelId
from supervisor import admission, scheduler
from supervisor.admission import FleetPicture, ModelPicture
from supervisor.fleet import Supervisor
from supervisor.hindrance import hindrance
from supervisor.lifecycle import State
from supervisor.policy import Policy
from supervisor.storage import trouble_of
from tests.sim.seeded_bugs import applied
from tests.support.fakes import GIB, Fleet, make_model

GPU = DeviceId("gpu0")
BUDGETS = {HOST: 40 * GIB, GPU: 20 * GIB}


def picture(*models: ModelPicture, **over: Any) -> FleetPicture:
    return FleetPicture(models, **{"budgets": BUDGETS, **over})


def model(name: str, gpu: int, state: State = State.STOPPED) -> ModelPicture:
    return ModelPicture(ModelId(name), state, {GPU: gpu * GIB, HOST: GIB}, {})


def why(found: FleetPicture, **over: Any) -> str:
    return hindrance(found, **{"free": {}, "storage": "", "is_served": True, **over})


SMALL, LARGE = model("small", 8), model("large", 16)
FULL = "state/logs cannot be written (No space left on device)"


def test_nothing_hinders_a_fleet_that_can_start_something() -> None:
    assert why(picture(SMALL, LARGE)) == ""
    assert why(picture()) == ""
    assert why(picture(SMALL, LARGE), free={GPU: 10 * GIB, HOST: 0}) == ""


@pytest.mark.parametrize("state", [State.READY, State.STARTING, State.DRAINING, State.STOPPING])
def test_one_that_serves_or_is_on_its_way_is_progress(state: State) -> None:
    assert why(picture(model("a", 8, state), LARGE), storage=FULL, free={GPU: 0}) == ""


def test_failing_models_are_not_counted_and_alone_say_themselves_why() -> None:
    failed = model("f", 8, State.FAILED)
    assert why(picture(failed), storage=FULL) == ""
    assert why(picture(failed, LARGE), storage=FULL) == f"no model can be started: {FULL}"
    assert why(picture(failed, LARGE)) == ""


def test_a_scheduler_that_decides_nothing_comes_before_all() -> None:
    assert "scheduler" in why(picture(model("a", 8, State.READY)), is_served=False)


def test_memory_that_somebody_left_over_holds_names_him() -> None:
    said = "memory that pid 4711 (14.0 GiB on gpu0), left over from a, still holds"
    held = {"stuck": {GPU: 14 * GIB}, "releasing": (said,)}
    assert why(picture(SMALL, LARGE, **held)) == f"no model can be started; large waits for {said}"
    assert why(picture(SMALL, LARGE, **held | {"stuck": {GPU: 10 * GIB}})) == ""


def test_memory_that_strangers_hold_is_told_by_numbers_and_on_gpus_only() -> None:
    found = why(picture(SMALL, LARGE), free={GPU: 3 * GIB, HOST: 0})
    assert found == (
        "no model can be started; large needs 16.0 GiB on gpu0, where 3.0 GiB are left by processes that are "
        "not ours"
    )


def test_budgets_that_hold_no_model_say_so() -> None:
    assert "whose budget is 4.0 GiB" in why(picture(SMALL, LARGE, budgets={HOST: 40 * GIB, GPU: 4 * GIB}))


def test_a_fleet_tells_its_own() -> None:
    fleet = Fleet((make_model("a"),))
    assert fleet.supervisor.view().hindrance == ""
    fleet.fake.trouble = FULL
    assert fleet.supervisor.view().hindrance == f"no model can be started: {FULL}"
    fleet.request("a")
    assert fleet.supervisor.view().hindrance == ""


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert trouble_of([tmp_path, tmp_path / "run"]) == ""
    assert list((tmp_path / "run").iterdir()) == []
    said = trouble_of([tmp_path, tmp_path / "gone"])
    assert said.startswith(f"{tmp_path / 'gone'} cannot be written (No such file or directory): make room")


# -- a fault of our own


def test_a_round_that_raised_is_outstanding_until_one_succeeds_and_nobody_is_lost() -> None:
    faults: list[Exception] = []
    fleet = Fleet((make_model("a"),))
    fleet.supervisor = Supervisor(fleet.models, replace(fleet.fake.world, fault=faults.append), fleet.policy)
    supervisor, broken = fleet.supervisor, [True]

    def decide(picture: FleetPicture, policy: Policy) -> admission.Plan:
        if broken[0]:
            raise ZeroDivisionError("out of a bug")
        return admission.decide(picture, policy)

    assert supervisor.is_served
    with applied(((scheduler, "decide", decide),)):
        request = fleet.request("a")
        assert not supervisor.is_served
        assert "scheduler" in supervisor.view().hindrance
        fleet.advance(30)
        assert request.open
        assert [str(error) for error in faults] == ["out of a bug"]  # told once, tried again each second
        broken[0] = False
        fleet.advance(10)
    assert request.lease is not None
    assert supervisor.is_served
    assert supervisor.view().hindrance == ""


def test_a_timer_that_never_came_is_noticed() -> None:
    fleet = Fleet((make_model("a", size=60 * GIB), make_model("b", size=60 * GIB)))
    fleet.request("a")
    fleet.advance(5)
    fleet.request("b")  # waits for `a`, which is in use: a timer is armed for max_wait
    assert fleet.supervisor.is_served
    fleet.fake.clock.lose_timers(70.0)
    assert not fleet.supervisor.is_served
