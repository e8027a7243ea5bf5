"""The status as a function of the fleet and the catalog: keys are stable, words are right."""

from __future__ import annotations

import typing
from dataclasses import replace

import pytest

from config.schema import VirtualConfig
from registry.capability import Capability
from registry.errors import EngineMissingError
from registry.fact import Fact
from registry.model import Facts, Model
from router.control.configuration import state_answer
from router.control.deps import FrontStats
from router.control.status import (
    ModelStatus,
    Moment,
    Pictures,
    Status,
    VirtualStatus,
    model_status,
    state_of,
)
from router.metrics import UNUSED, RequestTotals, Use
from router.reloading import ConfigStanding
from supervisor.lifecycle import State
from supervisor.view import FailureView, InstanceView
from tests.support.control import endpoint_model, local_model
from tests.support.fake_fleet import GIB, FakeFleet, instance_view
from tests.support.fakes import FakeClock


def moment(models: tuple[Model, ...], *views: InstanceView) -> Moment:
    return Moment(
        version="1",
        pid=7,
        listen=("127.0.0.1:8080",),
        uptime_seconds=12.5,
        fleet=FakeFleet(FakeClock(), *views).view(),
        models={model.id: model for model in models},
        totals=RequestTotals(total=5, served=5),
        use={model.id: Use(5, 38.5) for model in models},
        requests_per_second=1.5,
        front=FrontStats(connections=2),
        loop_lag_seconds=0.0,
        events=[],
        default_model="a",
        configuration=state_answer(ConfigStanding("/yard.yaml", False, 1.7e9, "", (), {})),
    )


def test_the_keys_are_those_documented() -> None:
    found = Pictures().draw(moment((local_model("b"), local_model("a")), instance_view("a", State.READY)))
    assert set(found) == set(typing.get_type_hints(Status))
    for model in found["models"]:
        assert set(model) == set(typing.get_type_hints(ModelStatus))
    assert [model["id"] for model in found["models"]] == ["a", "b"]
    assert found["instances"] == [instance_view("a", State.READY)]
    assert (found["requests"]["served"], found["front"]["connections"]) == (5, 2)


def test_names_that_stand_for_several_models_are_shown() -> None:
    config = VirtualConfig(models=("a", "b"), prefer="warm")
    found = Pictures().draw(replace(moment((local_model("a"),)), virtual={"best": config}))
    assert found["virtual"] == [
        {"name": "best", "models": ["a", "b"], "prefer": "warm", "fallback": ["failure", "overload"]}
    ]
    assert set(found["virtual"][0]) == set(typing.get_type_hints(VirtualStatus))


def test_a_model_with_an_instance_shows_how_it_does() -> None:
    failure = FailureView("out of memory", "use a smaller context", "out_of_memory", 1.7e9, 3)
    view = replace(
        instance_view("a", State.STARTING),
        leases=2,
        waiting=3,
        oldest_wait_seconds=1.5,
        note="loading",
        progress=0.4,
        eta_seconds=9.0,
        last_failure=failure,
    )
    facts = Facts(
        capabilities=Fact(frozenset({Capability.VISION, Capability.GENERATE})), context_length=Fact(4096)
    )
    shown = model_status(local_model("a", aliases=("x",), facts=facts), view, Use(4))
    assert (shown["state"], shown["in_flight"], shown["waiting"], shown["requests"]) == ("starting", 2, 3, 4)
    assert (shown["note"], shown["progress"], shown["eta_seconds"]) == ("loading", 0.4, 9.0)
    assert shown["memory"] == {
        "estimated_bytes": 2 * GIB,
        "reserved_bytes": 2 * GIB,
        "measured_bytes": GIB,
        "devices": [{"device": "host", "reserved_bytes": 2 * GIB, "measured_bytes": GIB}],
    }
    assert shown["last_error"] == {
        "cause": "out of memory",
        "remedy": "use a smaller context",
        "code": "out_of_memory",
        "at": 1.7e9,
        "incarnation": 3,
    }
    assert shown["capabilities"] == ["generate", "vision"]
    assert (shown["aliases"], shown["context_length"]) == (["x"], 4096)


def test_totals_of_the_fleet_are_sums() -> None:
    views = (replace(instance_view(name, State.READY), leases=3) for name in "ab")
    assert Pictures().draw(moment((local_model("a"), local_model("b")), *views))["in_flight"] == 6


@pytest.mark.parametrize("state", list(State))
def test_the_word_for_an_instance_is_its_state(state: State) -> None:
    assert state_of(local_model("a"), instance_view("a", state)) == state.value


def test_words_for_models_without_an_instance() -> None:
    broken = local_model("a", problem=EngineMissingError("run `modelyard engine install mlx-lm`"))
    assert state_of(local_model("a"), None) == "stopped"
    assert state_of(endpoint_model("e"), None) == "endpoint"
    assert state_of(broken, None) == "unusable"
    assert model_status(broken, None, UNUSED)["problem"] == {
        "code": "engine_not_installed",
        "message": "run `modelyard engine install mlx-lm`",
    }


def test_a_model_is_drawn_anew_when_something_about_it_is() -> None:
    pictures = Pictures()
    a, b = local_model("a"), local_model("b")
    view = instance_view("a", State.READY)
    first = moment((a, b), view)
    (drawn, other) = pictures.draw(first)["models"]
    assert all(one is two for one, two in zip(pictures.draw(first)["models"], (drawn, other), strict=True))
    for now in (
        replace(first, models={**first.models, a.id: local_model("a", aliases=("x",))}),
        replace(first, fleet=FakeFleet(FakeClock(), replace(view, leases=3)).view()),
        replace(first, use={**first.use, a.id: Use(6, 38.5)}),
    ):
        found = pictures.draw(now)
        assert found == Pictures().draw(now)
        assert found["models"][0] != drawn
        assert found["models"][1] is other
        pictures.draw(first)


def test_models_that_are_gone_are_in_no_picture() -> None:
    pictures = Pictures()
    pictures.draw(moment((local_model("a"), local_model("b"))))
    left = moment((local_model("b"),))
    assert pictures.draw(left) == Pictures().draw(left)
    back = moment((local_model("a", ttl=9), local_model("b")))
    assert pictures.draw(back) == Pictures().draw(back)
