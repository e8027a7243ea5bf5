"""The control app in one process: the real app behind its real door, on fakes, spoken to over the pair."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from config.errors import ConfigError
from config.load import Draft
from config.schema import VirtualConfig
from config.vocabulary import EngineName
from registry.engine import HOST, Footprint, LaunchSpec, ModelId
from registry.errors import ModelNotFoundError, ModelRequiredError
from registry.model import EndpointTarget, Model, SourceKind
from router.control.app import build_app
from router.control.deps import ControlDeps, FrontStats
from router.control.door import MOST_LINES, Door
from router.control.events import EventRing
from router.metrics import Metrics
from router.reloading import Applied, ConfigStanding, Planned
from supervisor.reload import ReloadPlan
from supervisor.tasks import TaskScope
from tests.support.fake_fleet import GIB, FakeFleet, instance_view
from tests.support.fakes import FakeClock

T = TypeVar("T")


def local_model(name: str, **changes: Any) -> Model:
    """A model we could start."""
    spec = LaunchSpec(ModelId(name), EngineName.MLX_LM, ("serve",), footprint=Footprint({HOST: 2 * GIB}))
    model = Model(ModelId(name), EngineName.MLX_LM, f"org/{name}", SourceKind.HUB_CACHE, spec=spec)
    return replace(model, **changes)


def endpoint_model(name: str, url: str = "http://localhost:8000") -> Model:
    """A model that runs elsewhere."""
    target = EndpointTarget("local", url)
    return Model(ModelId(name), EngineName.ENDPOINT, url, SourceKind.ENDPOINT, endpoint=target)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        assert self.headers["content-type"].startswith("application/json"), self.headers
        return json.loads(self.body)

    def code(self) -> str:
        """The code in an error envelope."""
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return str(error["code"])


class Pair:
    """A small HTTP/1.1 client on the front's end of a pair; one request at a time, keep-alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        """Write a request."""
        fields = {"Host": "127.0.0.1:8080", **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{head}{length}\r\n".encode() + body)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read a status line and fields, names in lower case."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = text.split("\r\n")
        pairs = (line.split(": ", 1) for line in rest if line)
        return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Send a request and read its whole answer."""
        await self.send(method, path, headers, body)
        status, fields = await self.head()
        body = b""
        if method != "HEAD":
            body = await self.reader.readexactly(int(fields.get("content-length", "0")))
        return Answer(status, fields, body)

    async def close(self) -> None:
        """Leave."""
        self.writer.close()
        await self.writer.wait_closed()


@dataclass
class FakeConfiguration:
    """Reloads that were asked for. *problem*: what is wrong with the file."""

    planned: Planned = field(default_factory=lambda: Planned("/yard.yaml", ReloadPlan((), ()), (), ()))
    applied: Applied = field(init=False)
    problem: ConfigError | None = None
    standing: ConfigStanding = field(
        default_factory=lambda: ConfigStanding("/yard.yaml", False, 1.7e9, "", (), {})
    )
    drafts: list[Draft | None] = field(default_factory=list)
    waits: int = 0

    def __post_init__(self) -> None:
        self.applied = Applied(self.planned, {})

    async def plan(self, draft: Draft | None) -> Planned:
        """What the test says."""
        self.drafts.append(draft)
        if self.problem is not None:
            raise self.problem
        return self.planned

    async def apply(self) -> Applied:
        """What the test says."""
        if self.problem is not None:
            raise self.problem
        return self.applied

    async def settled(self, applied: Applied) -> None:
        """At once."""
        self.waits += 1


@dataclass
class ControlWorld:
    """Everything around the control app. `models` may be changed while it runs."""

    clock: FakeClock = field(default_factory=FakeClock)
    models: dict[ModelId, Model] = field(default_factory=dict)
    virtual: dict[str, VirtualConfig] = field(default_factory=dict)
    default_model: str | None = None
    listen: tuple[str, ...] = ("127.0.0.1:8080",)
    host_names: frozenset[str] = frozenset()
    most_lines: int = MOST_LINES
    front: FrontStats = field(default_factory=FrontStats)
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    """As `asyncio.Runner` takes it."""

    def __post_init__(self) -> None:
        self.fleet = FakeFleet(self.clock)
        self.configuration = FakeConfiguration()
        self.metrics = Metrics(version="1.2.3")
        self.events = EventRing(self.clock)
        self.tasks = TaskScope()
        self.crashes: list[BaseException] = []

    def add(self, model: Model) -> None:
        """A model; one of ours gets a stopped instance."""
        self.models[model.id] = model
        if model.endpoint is None and model.problem is None:
            self.fleet.put(instance_view(model.id))
        self.metrics.set_models(self.models)

    def resolve(self, name: str) -> Model:
        """Exact ids and aliases only."""
        for model in self.models.values():
            if name == model.id or name in model.aliases:
                return model
        raise ModelNotFoundError(f"there is no model {name!r}")

    def pick(self, name: str | None) -> Model:
        """The first that a virtual name stands for."""
        if name is None:
            raise ModelRequiredError("the request names no model, and no default_model is configured")
        return self.resolve(self.virtual[name].models[0] if name in self.virtual else name)

    def deps(self) -> ControlDeps:
        """What the app is built from."""
        return ControlDeps(
            fleet=self.fleet,
            catalog=lambda: self,
            resolve=self.resolve,
            pick=self.pick,
            entry=lambda model, state: {"id": model.id, "object": "model", "state": state},
            events=self.events,
            metrics=self.metrics,
            front=lambda: self.front,
            requests_per_second=lambda: 1.5,
            clock=self.clock,
            spawn=self.tasks.spawn,
            version="1.2.3",
            pid=77,
            listen=self.listen,
            host_names=self.host_names,
            started=self.clock.now(),
            configuration=self.configuration,
        )

    def run(self, scenario: Callable[[Served], Awaitable[T]]) -> T:
        """Serve the app, play *scenario*, and check that nothing is left open."""

        async def play() -> T:
            self.tasks = TaskScope(lambda _, error: self.crashes.append(error))
            served = Served(self, Door(build_app(self.deps()), spawn=self.tasks.spawn, most=self.most_lines))
            await served.door.start()
            try:
                async with asyncio.timeout(10):
                    return await scenario(served)
            finally:
                await served.close()
                assert self.crashes == []

        with asyncio.Runner(loop_factory=self.loop_factory) as runner:
            return runner.run(play())


class Served:
    """A running app and the pairs opened to it."""

    def __init__(self, world: ControlWorld, door: Door) -> None:
        self.world = world
        self.door = door
        self._pairs: list[Pair] = []

    async def pair(self, client: str = "127.0.0.1") -> Pair:
        """A fresh connection."""
        reader, writer = await asyncio.open_connection(sock=self.door.open(client))
        pair = Pair(reader, writer)
        self._pairs.append(pair)
        return pair

    async def get(self, path: str, **headers: str) -> Answer:
        """GET on a connection of its own. Keywords are headers: `Accept="text/html"`, `_` for `-`."""
        return await self._once("GET", path, headers)

    async def post(self, path: str, body: bytes = b"", **headers: str) -> Answer:
        """POST on a connection of its own."""
        return await self._once("POST", path, headers, body)

    async def _once(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        pair = await self.pair()
        try:
            return await pair.ask(method, path, {k.replace("_", "-"): v for k, v in headers.items()}, body)
        finally:
            self._pairs.remove(pair)
            await pair.close()

    async def close(self) -> None:
        """End it all."""
        for pair in self._pairs:
            await pair.close()
        await self.door.close()
        await self.world.tasks.close()


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop turns until *condition* holds; no time passes. Fails after many turns."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, not a pause
    raise AssertionError("it never came true")
