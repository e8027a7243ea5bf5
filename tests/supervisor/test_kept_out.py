"""Kept out by what nobody here can move: a pinned model, or a process that holds on to its memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry.engine import HOST, DeviceId, Footprint, ModelId
from registry.model import Model
from supervisor.errors import ModelTooLargeError, WaitTimeoutError
from supervisor.policy import Policy
from tests.support.fakes import GIB, FakeWorld, Fleet, Request, Script, make_model

A, B = ModelId("a"), ModelId("b")
G0, G1 = DeviceId("gpu0"), DeviceId("gpu1")
NO_TIME = 0.0


def small(*models: Model, policy: Policy | None = None) -> Fleet:
    return Fleet(models, policy or Policy(), FakeWorld(budget=20 * GIB))


def served(fleet: Fleet, model: str) -> Request:
    request = fleet.request(model)
    fleet.advance(15)
    assert request.lease is not None
    return request


def refusal(request: Request) -> str:
    assert isinstance(request.error, ModelTooLargeError), request
    return str(request.error)


def test_who_pins_is_named_at_once_with_what_lets_go() -> None:
    fleet = small(make_model("a", size=12 * GIB, pin=True), make_model("b", size=10 * GIB))
    served(fleet, "a")
    assert refusal(fleet.request("b")) == (
        "b needs 10.0 GiB on host, whose budget is 20.0 GiB and where a (12.0 GiB) is pinned; "
        "`modelyard unpin` lets go of it"
    )


def test_all_who_pin_are_named() -> None:
    fleet = small(
        *(make_model(name, size=6 * GIB, pin=True) for name in "ac"), make_model("b", size=10 * GIB)
    )
    for name in "ac":
        served(fleet, name)
    assert "where a (6.0 GiB), c (6.0 GiB) is pinned" in refusal(fleet.request("b"))


def test_a_pinned_one_that_is_in_use_or_still_starts_is_no_reason_to_wait() -> None:
    fleet = small(make_model("a", size=12 * GIB, pin=True), make_model("b", size=10 * GIB))
    fleet.request("a")
    fleet.advance(1)
    assert fleet.state("a") == "starting"
    assert "a (12.0 GiB) is pinned" in refusal(fleet.request("b"))


def test_whoever_waits_already_is_refused_when_somebody_pins() -> None:
    fleet = small(make_model("a", size=12 * GIB), make_model("b", size=10 * GIB))
    served(fleet, "a")
    waits = fleet.request("b")
    fleet.advance(1)
    assert waits.open
    fleet.supervisor.pin(A, pinned=True)
    fleet.advance(NO_TIME)
    assert "a (12.0 GiB) is pinned" in refusal(waits)
    fleet.supervisor.pin(A, pinned=False)
    assert fleet.request("b").open


def test_beside_a_busy_one_that_would_do_it_is_waited_for() -> None:
    models = (
        make_model("a", size=6 * GIB, pin=True),
        make_model("c", size=12 * GIB),
        make_model("b", size=14 * GIB),
    )
    fleet = small(*models)
    served(fleet, "a")
    served(fleet, "c")
    waits = fleet.request("b")
    assert waits.open
    assert fleet.supervisor.phase(B) == "waiting for memory: c in use"


def test_an_exclusive_one_is_told_beside_whom_it_may_not_be() -> None:
    exclusive = replace(make_model("b", size=GIB), exclusive=True)
    fleet = small(make_model("a", size=GIB, pin=True), exclusive)
    served(fleet, "a")
    request = fleet.request("b")
    fleet.advance(NO_TIME)
    assert refusal(request).startswith("b may not be loaded beside a, which is pinned")


def test_on_several_gpus_all_must_be_pinned() -> None:
    model = make_model("b", need={G0: 10 * GIB})
    assert model.spec is not None
    elsewhere = replace(model.spec, footprint=Footprint({G1: 10 * GIB}), env={"CUDA_VISIBLE_DEVICES": "1"})
    pinned = [make_model(name, need={gpu: 12 * GIB}, pin=True) for name, gpu in (("a", G0), ("c", G1))]
    fake = FakeWorld(devices={G0: 20 * GIB, G1: 20 * GIB, HOST: GIB})
    fleet = Fleet((*pinned, replace(model, elsewhere=(elsewhere,))), Policy(), fake)
    served(fleet, "a")
    assert fleet.request("b").open
    fleet.supervisor.instances[B].stop()
    fleet.advance(20)
    fleet.supervisor.instances[B].stop(drain_grace=0)
    fleet.advance(20)
    assert fleet.state("b") == "stopped"
    served(fleet, "c")
    assert "is pinned" in refusal(fleet.request("b"))


# -- memory that is not given back


@pytest.mark.parametrize("busy", [False, True], ids=["nobody else", "another in use"])
def test_who_waited_in_vain_is_told_the_pid_that_still_holds_the_memory(busy: bool) -> None:
    sizes = {"a": 15, "b": 15, "c": 4}
    models = tuple(make_model(name, need={G0: size * GIB}) for name, size in sizes.items())
    policy = Policy(free_timeout=5, request_timeout=20, max_wait=1000)
    fleet = Fleet(models, policy, FakeWorld(devices={G0: 20 * GIB, HOST: 20 * GIB}))
    fleet.fake.scripts[A] = [Script(memory_late=500)]
    request = served(fleet, "a")
    if busy:
        served(fleet, "c")
    pid = fleet.child("a").record.pid
    request.done()
    waits = fleet.request("b")
    fleet.advance(19)
    assert waits.open
    fleet.advance(2)
    assert isinstance(waits.error, WaitTimeoutError)
    held = f"memory that pid {pid} (15.0 GiB on gpu0), left over from a, still holds"
    assert held in str(waits.error)
    assert ("c in use" in str(waits.error)) == busy


def test_while_it_may_still_come_back_it_is_said_whose_it_was() -> None:
    models = tuple(make_model(name, need={G0: 15 * GIB}) for name in "ab")
    policy = Policy(free_timeout=30, request_timeout=10)
    fleet = Fleet(models, policy, FakeWorld(devices={G0: 20 * GIB, HOST: 20 * GIB}))
    fleet.fake.scripts[A] = [Script(memory_late=500)]
    served(fleet, "a").done()
    waits = fleet.request("b")
    fleet.advance(11)
    assert isinstance(waits.error, WaitTimeoutError)
    assert "waiting for the memory of a" in str(waits.error)
