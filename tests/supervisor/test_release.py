"""Memory: what comes back late, what is more than was thought, and what did not suffice."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from registry.engine import HOST, DeviceId, ModelId
from supervisor.errors import ModelFailedError
from supervisor.policy import Policy
from supervisor.ports import EventKind
from tests.support.fakes import GIB, FakeWorld, Fleet, Script, make_model

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")
GPU = DeviceId("gpu0")


def on_gpu(*sizes: int, policy: Policy | None = None) -> Fleet:
    models = tuple(make_model("abc"[n], size=size * GIB, device=GPU) for n, size in enumerate(sizes))
    fake = FakeWorld(devices={GPU: 20 * GIB, HOST: 20 * GIB})
    return Fleet(models, policy or Policy(), fake)


def idle(fleet: Fleet, model: str) -> None:
    request = fleet.request(model)
    fleet.advance(15)
    request.done()


def test_a_start_waits_until_the_gpus_memory_is_measured_back() -> None:
    fleet = on_gpu(15, 15)
    fleet.fake.scripts[A] = [Script(memory_late=3)]
    idle(fleet, "a")
    fleet.request("b")
    fleet.advance(2)
    assert fleet.state("a") == "stopped"
    assert fleet.state("b") == "stopped"
    assert fleet.supervisor.phase(B) == "waiting for the memory of a"
    fleet.advance(1.5)
    assert fleet.state("b") == "starting"


def test_whoever_holds_it_for_too_long_is_named_and_counts_as_taken() -> None:
    fleet = on_gpu(15, 15, 4, policy=Policy(free_timeout=10, request_timeout=300))
    fleet.fake.scripts[A] = [Script(memory_late=100)]
    idle(fleet, "a")
    pid = fleet.child("a").record.pid
    waits = fleet.request("b")
    fleet.advance(15)
    held = [event for event in fleet.fake.events if event.kind is EventKind.MEMORY_HELD]
    assert [event.data["pids"] for event in held] == [[pid]]
    assert fleet.supervisor.phase(B) == (
        f"waiting for memory that pid {pid} (15.0 GiB on gpu0), left over from a, still holds"
    )
    beside = fleet.request("c")
    fleet.advance(10)
    assert beside.lease is not None, "what is free beside it is used"
    assert waits.open
    beside.done()
    fleet.advance(100)
    assert waits.lease is not None, "it let go"


def test_ram_is_free_when_its_process_is() -> None:
    models = (make_model("a", size=15 * GIB), make_model("b", size=15 * GIB))
    fleet = Fleet(models, fake=FakeWorld(budget=20 * GIB))
    fleet.fake.scripts[A] = [Script(memory_late=3)]
    idle(fleet, "a")
    fleet.request("b")
    fleet.advance(0.2)
    assert fleet.state("b") == "starting"


def test_a_start_that_ran_out_of_memory_is_tried_once_more_with_room_made_for_it() -> None:
    fleet = on_gpu(8, 10)
    idle(fleet, "a")
    fleet.fake.scripts[B] = [Script(ready_after=None, exit_after=1, tail=("CUDA out of memory",)), Script()]
    asked = fleet.request("b")
    fleet.advance(1.5)
    assert asked.open
    assert fleet.state("a") in ("stopping", "stopped"), "15 GiB are set aside now: a has to go"
    fleet.advance(10)
    assert asked.lease is not None
    assert fleet.supervisor.instances[B].reserved == {GPU: 15 * GIB}
    assert fleet.supervisor.instances[B].crashes.count(fleet.fake.clock.now()) == 0


def test_the_second_time_it_is_a_failure_with_its_cause() -> None:
    fleet = on_gpu(8, 10)
    idle(fleet, "a")
    fleet.fake.scripts[B] = [Script(ready_after=None, exit_after=1, tail=("CUDA out of memory",))]
    asked = fleet.request("b")
    fleet.advance(10)
    assert isinstance(asked.error, ModelFailedError)
    assert "CUDA out of memory" in str(asked.error)
    assert fleet.fake.transcript.count("launch b/1") + fleet.fake.transcript.count("launch b/2") == 2
    assert fleet.fake.spawns == 3


def test_one_that_lacked_memory_never_wants_more_than_there_is() -> None:
    fleet = on_gpu(8, 18)
    fleet.fake.scripts[B] = [Script(ready_after=None, exit_after=1, tail=("CUDA out of memory",)), Script()]
    asked = fleet.request("b")
    fleet.advance(10)
    assert asked.lease is not None
    assert fleet.supervisor.instances[B].reserved == {GPU: 20 * GIB}


def test_one_that_lacked_memory_is_still_kept_apart_from_its_group() -> None:
    models = (
        replace(make_model("a", size=4 * GIB), pin=True, group="g"),
        replace(make_model("b", size=4 * GIB), group="g"),
    )
    fleet = Fleet(models, fake=FakeWorld(budget=20 * GIB))
    fleet.fake.scripts[B] = [Script(ready_after=None, exit_after=1, tail=("CUDA out of memory",)), Script()]
    fleet.request("b")
    fleet.advance(0.5)
    fleet.request("a")
    fleet.advance(20)
    assert [fleet.state(name) for name in "ab"].count("ready") == 1


def test_more_than_was_set_aside_costs_one_idle_model_its_place() -> None:
    models = tuple(make_model(name, size=6 * GIB) for name in "abc")
    fleet = Fleet(models, fake=FakeWorld(budget=20 * GIB))
    fleet.fake.scripts[A] = [Script(uses=18 * GIB)]
    asyncio.run(fleet.supervisor.begin())
    idle(fleet, "b")
    idle(fleet, "c")
    fleet.request("a")
    fleet.advance(12)
    states = [fleet.state(name) for name in "abc"]
    assert states == ["ready", "stopped", "ready"]
    evicted = [event for event in fleet.fake.events if event.kind is EventKind.EVICTED]
    assert [(event.model, event.data["beneficiary"]) for event in evicted] == [(B, A)]
    fleet.advance(60)
    assert fleet.state("c") == "ready", "and no other"
