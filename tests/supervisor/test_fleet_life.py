"""How a fleet begins, takes over what an earlier daemon left, follows a reload, and ends."""

from __future__ import annotations

import asyncio

from config.vocabulary import EngineName
from registry.engine import ModelId
from supervisor.errors import StoppingError
from supervisor.ports import ChildRecord, EventKind
from tests.support.fakes import GIB, FakeWorld, Fleet, Script, make_model

A = ModelId("a")


def test_an_adopted_tree_keeps_its_pid_and_answers_after_proving_itself() -> None:
    fake = FakeWorld()
    model = make_model("a")
    assert model.spec is not None
    record = record_of("a", model.spec.fingerprint)
    fake.left_behind = [(record, Script(ready_after=0.1))]
    fleet = Fleet((model,), fake=fake)
    asyncio.run(fleet.supervisor.begin())
    request = fleet.request("a")
    fleet.advance(1)
    assert request.lease is not None
    assert request.lease.generation == 4711
    assert fake.spawns == 0
    assert [e.kind for e in fake.events if e.kind is EventKind.ADOPTED] == [EventKind.ADOPTED]


def test_a_survivor_that_is_to_be_preloaded_is_not_started_beside_itself() -> None:
    fake = FakeWorld()
    models = (make_model("a", size=GIB), make_model("b", size=GIB, preload=True))
    for model in models:
        assert model.spec is not None
        fake.leave_behind(model.spec, Script(ready_after=0.1))
    fleet = Fleet(models, fake=fake)
    asyncio.run(fleet.supervisor.begin())
    fleet.advance(5)
    assert (fleet.state("a"), fleet.state("b")) == ("ready", "ready")
    assert fake.spawns == 0


def test_a_survivor_that_is_started_otherwise_now_is_ended_and_never_leased() -> None:
    fake = FakeWorld()
    fake.left_behind = [(record_of("a", "other-flags"), Script())]
    fleet = Fleet((make_model("a"),), fake=fake)
    asyncio.run(fleet.supervisor.begin())
    fleet.advance(1)
    assert fake.live == []
    assert fleet.state("a") == "stopped"


def test_a_survivor_that_dies_before_it_is_attached_is_started_afresh() -> None:
    fake = FakeWorld()
    model = make_model("a")
    assert model.spec is not None

    async def survivors() -> tuple[ChildRecord, ...]:
        assert model.spec is not None
        return (record_of("a", model.spec.fingerprint),)

    fake.survivors = survivors  # type: ignore[method-assign]  # listed, and gone when attached
    fleet = Fleet((model,), fake=fake)
    asyncio.run(fleet.supervisor.begin())
    request = fleet.request("a")
    fleet.advance(5)
    assert request.lease is not None
    assert fake.spawns == 1


def record_of(model: str, fingerprint: str) -> ChildRecord:
    return ChildRecord(
        model=ModelId(model),
        engine=EngineName.COMMAND,
        fingerprint=fingerprint,
        incarnation=7,
        port=41000,
        key="",
        shim_pid=4710,
        shim_started=0.0,
        pid=4711,
        boot_id="boot",
        socket="",
        log="",
        spawned_at=0.0,
    )


def test_preload_starts_with_the_daemon_and_again_after_a_crash() -> None:
    fleet = Fleet((make_model("a", preload=True), make_model("b")))
    asyncio.run(fleet.supervisor.begin())
    fleet.advance(5)
    assert (fleet.state("a"), fleet.state("b")) == ("ready", "stopped")
    fleet.child("a").crash()
    fleet.advance(10)
    assert fleet.state("a") == "ready"
    assert fleet.fake.spawns == 2


def test_shutdown_refuses_what_waits_gives_streams_their_grace_and_leaves_nothing() -> None:
    fleet = Fleet((make_model("a"), make_model("b")))
    streaming = fleet.request("a")
    fleet.advance(5)
    waiting = fleet.request("b")

    async def scenario() -> None:
        ending = asyncio.get_running_loop().create_task(fleet.supervisor.shutdown(drain_grace=3))
        for _ in range(3):
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        assert isinstance(waiting.error, StoppingError)
        assert fleet.state("a") == "draining"
        fleet.advance(2)
        assert fleet.state("a") == "draining"
        fleet.advance(10)
        await ending

    asyncio.run(scenario())
    assert streaming.lease is not None
    assert fleet.fake.live == []
    assert fleet.fake.ports_out == set()
    assert isinstance(fleet.request("a").error, StoppingError)


def test_a_removed_model_is_stopped_and_forgotten_and_a_changed_one_restarts() -> None:
    fleet = Fleet((make_model("a"), make_model("b")))
    for name in ("a", "b"):
        fleet.request(name).waiter.cancel()  # type: ignore[union-attr]  # it waits, so there is one
    fleet.advance(5)
    fleet.reload(make_model("b", argv=("engine", "--other", "{port}")))
    fleet.advance(1)
    assert A not in fleet.supervisor.instances
    assert isinstance(fleet.request("a").error, StoppingError)
    request = fleet.request("b")
    fleet.advance(5)
    assert request.lease is not None
    assert fleet.fake.transcript[-1] == "ready b/2"
