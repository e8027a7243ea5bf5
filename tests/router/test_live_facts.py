"""What ready engines are asked, and what is made of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest

from config.vocabulary import EngineName
from registry.capability import Capability
from registry.catalog import Catalog
from registry.engine import Answers, LaunchSpec, Lists, ModelId, Wire
from registry.fact import Rank
from registry.families import load_families
from registry.model import Model, SourceKind
from registry.resolve import build_index
from router.live_facts import LiveFacts
from supervisor.ports import EventKind, SupervisorEvent
from supervisor.tasks import TaskScope
from tests.support.daemon_stub import DaemonStub, Reply

NAME = ModelId("org/m")
VLLM_LIST = {"data": [{"id": "org/m", "owned_by": "vllm", "max_model_len": 1024}, {"id": "other"}]}
EMBED_ROUTES: dict[str, Any] = {"paths": {"/v1/embeddings": {}, "/score": {}}}


class Fixed:
    """A supervisor with one tree, at one port."""

    def __init__(self, port: int | None) -> None:
        self._port = port

    def address(self, model: ModelId) -> tuple[int, str] | None:
        return None if self._port is None else (self._port, "key")


def model(*readiness: Lists | Answers) -> Model:
    spec = LaunchSpec(NAME, EngineName.VLLM, (), readiness=readiness)
    wire = Wire("org/m", frozenset({"org/m"}))
    return Model(NAME, EngineName.VLLM, "org/m", SourceKind.HUB_CACHE, spec=spec, wire=wire)


def event(kind: EventKind, incarnation: int = 1) -> SupervisorEvent:
    return SupervisorEvent(kind, NAME, incarnation, 0.0)


class World:
    """Live facts with an engine that answers as it is told."""

    def __init__(self, port: int | None, known: Model) -> None:
        self.changes = 0
        self.changed = asyncio.Event()
        self.tasks = TaskScope()
        self.live = LiveFacts(
            lambda: {NAME: known}, Fixed(port), spawn=self.tasks.spawn, changed=self._on_change
        )

    def _on_change(self) -> None:
        self.changes += 1
        self.changed.set()

    async def ready(self) -> None:
        self.changed.clear()
        self.live.on_event(event(EventKind.READY))
        async with asyncio.timeout(20):
            await self.changed.wait()


def port_of(stub: DaemonStub) -> int:
    port = urlsplit(stub.url).port
    assert port is not None
    return port


def asked(answers: Mapping[str, Reply], known: Model) -> Any:
    async def scenario() -> Any:
        with DaemonStub(dict(answers)) as stub:
            world = World(port_of(stub), known)
            await world.ready()
            served = world.live.served()[NAME]
            world.live.on_event(event(EventKind.EXITED))
            assert (world.live.served(), world.changes) == ({}, 2)
            await world.live.close()
            return served

    return asyncio.run(scenario())


def test_vllm_says_its_context_and_what_it_serves() -> None:
    served = asked({"GET /v1/models": Reply(VLLM_LIST), "GET /openapi.json": Reply(EMBED_ROUTES)}, model())
    assert (served.context_length, served.roles) == (1024, frozenset({Capability.EMBED}))


def test_an_engine_that_lists_nothing_has_shown_what_it_answered() -> None:
    """mlx_lm.server lists the hub's cache, or nothing."""
    known = model(Answers("/v1/completions", b"{}"))
    served = asked({"GET /v1/models": Reply({"data": []})}, known)
    assert (served.roles, served.roles_source) == (
        frozenset({Capability.GENERATE}),
        "it answered /v1/completions",
    )


def test_an_answer_that_comes_after_the_end_is_dropped() -> None:
    async def scenario() -> None:
        with DaemonStub({"GET /v1/models": Reply(VLLM_LIST)}) as stub:
            world = World(port_of(stub), model())
            world.live.on_event(event(EventKind.READY))
            world.live.on_event(event(EventKind.EXITED))
            await asyncio.gather(*world.tasks._tasks)
            assert (world.live.served(), world.changes) == ({}, 0)
            await world.live.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("port", [None, 1])
def test_an_engine_that_is_gone_is_no_error(port: int | None) -> None:
    async def scenario() -> None:
        world = World(port, model(Answers("/v1/completions", b"{}")))
        world.live.on_event(event(EventKind.ADOPTED))
        await asyncio.wait_for(world.changed.wait(), 20) if port else await world.tasks.close()
        assert set(world.live.served()) == ({NAME} if port else set())
        await world.live.close()

    asyncio.run(scenario())


def test_what_an_engine_says_is_above_the_files_and_names_stay() -> None:
    from registry.probe import ServedModel

    known = model()
    catalog = Catalog({NAME: known}, build_index([NAME], {}), families=load_families())
    live = catalog.with_live(
        {NAME: ServedModel("org/m", context_length=1024), ModelId("gone"): ServedModel("x")}
    )
    fact = live.models[NAME].facts.context_length
    assert (fact.value, fact.rank, fact.source) == (1024, Rank.ENGINE, "/v1/models")
    assert live.index is catalog.index
    assert list(live.models) == [NAME]
