"""Ring 3's world: the real front between raw clients and a scripted engine, on a clock that stands still."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from registry.capability import Endpoint
from registry.engine import Wire
from registry.resolve import name_and_rest
from router.control.guard import Guard
from router.front import Front
from router.ports import Choice, FrontLimits, Holder, Lease, Outcome, Refusal, RequestRecord, Route
from router.shared import FrontPorts
from tests.support.scripted_upstream import ScriptedUpstream


class UnknownError(Exception):
    """What a directory raises for a name it does not have."""


class BusyError(Exception):
    """What upstreams raise for a full queue."""


@dataclass
class FakeTime:
    """The front's clock: stands still until it is moved."""

    value: float = 1000.0

    def __call__(self) -> float:
        return self.value


@dataclass
class FakeLease:
    """Counts its releases; a second one changes nothing, as the contract says."""

    host: str
    port: int
    generation: int
    key: str = ""
    tls: bool = False
    revoked: bool = False
    outcome: Outcome | None = None
    ended: list[Outcome] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)

    def keep(self, seconds: float) -> None:
        self.kept.append(seconds)

    def release(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self.ended.append(outcome)


@dataclass
class FakeDirectory:
    """Models by exact name; None is the default model."""

    routes: dict[str | None, Route | Choice] = field(default_factory=dict)
    asked: list[tuple[str | None, str]] = field(default_factory=list)

    def route(self, name: str | None, endpoint: Endpoint, holder: Holder | None = None) -> Route | Choice:
        self.asked.append((name, endpoint.path))
        if name not in self.routes:
            raise UnknownError(f"no model {name!r}")
        return self.routes[name]

    def below(self, path: str, holder: Holder | None = None) -> tuple[Route, str]:
        for name, rest in name_and_rest(path):
            route = self.routes.get(name)
            if isinstance(route, Route):
                return route, rest
        raise UnknownError(f"no model {path!r}")


@dataclass
class FakeUpstreams:
    """Leases on one scripted engine: at once while `ready`, else when the test calls `grant`."""

    engine: ScriptedUpstream
    ready: bool = True
    """Leases are given at once; see `hold`."""
    key: str = ""
    leases: list[FakeLease] = field(default_factory=list)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    cancelled: int = 0
    eta: float | None = None
    generation: int = 1
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when somebody waits."""
    broken: dict[str, Exception] = field(default_factory=dict)
    """Models that cannot be had, and what is raised instead."""

    def lease_now(self, route: Route) -> Lease | None:
        return self._new() if self.ready and route.model not in self.broken else None

    def lease_of(self, route: Route, generation: int) -> Lease | None:
        return self._new() if generation == self.generation else None

    async def lease(
        self, route: Route, *, timeout: float | None = None, request: str = "", priority: int = 0
    ) -> Lease:
        if route.model in self.broken:
            raise self.broken[route.model]
        if self.ready:
            return self._new()
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        self.arrived.set()
        try:
            await waiter
        except asyncio.CancelledError:
            self.cancelled += 1
            self.waiters.remove(waiter)
            raise
        return self._new()

    def ready_in(self, route: Route) -> float | None:
        return self.eta

    def waiting_note(self, route: Route) -> str:
        return f"loading {route.model} 42% eta 12s"

    def hold(self) -> None:
        """From now on everybody waits."""
        self.ready = False

    async def next_waiter(self, count: int = 1) -> None:
        """Until *count* requests wait."""
        while len(self.waiters) < count:
            self.arrived.clear()
            await self.arrived.wait()

    def grant(self) -> None:
        """Let the first waiter have its lease."""
        self.waiters.pop(0).set_result(None)

    def refuse(self, error: Exception) -> None:
        """End the first waiter's wait with *error*."""
        self.waiters.pop(0).set_exception(error)

    def _new(self) -> FakeLease:
        lease = FakeLease("127.0.0.1", self.engine.port, self.generation, self.key)
        self.leases.append(lease)
        return lease


def refusals(error: BaseException) -> Refusal:
    """Total, as the real one."""
    if isinstance(error, UnknownError):
        return Refusal(404, "model_not_found", str(error))
    if isinstance(error, BusyError):
        return Refusal(503, "queue_full", str(error), "server_error", retry_after=2.4)
    return Refusal(500, "internal_error", repr(error), "server_error")


class FakeControl:
    """A control app the test plays by hand: one socket per request."""

    def __init__(self) -> None:
        self.opened: asyncio.Queue[tuple[str, socket.socket]] = asyncio.Queue()

    def open(self, client: str, holder: Holder | None = None) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.opened.put_nowait((client, theirs))
        return ours

    async def next_request(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
        """The app's end of the next request, as streams, and who is behind it."""
        client, sock = await self.opened.get()
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return reader, writer, client


class RawClient:
    """A client that sends exactly the bytes it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Write *data*."""
        self.writer.write(data)

    def post(
        self, body: bytes, *, path: str = "/v1/chat/completions", version: str = "1.1", extra: str = ""
    ) -> None:
        """A JSON POST with a Content-Length."""
        self.send(
            f"POST {path} HTTP/{version}\r\nHost: modelyard\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{extra}\r\n".encode()
            + body
        )

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and the fields of the next answer."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        line, *fields = raw[:-4].decode().split("\r\n")
        headers: dict[str, str] = {}
        for item in fields:
            name, _, value = item.partition(": ")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        return int(line.split(" ")[1]), headers

    async def chunk(self) -> bytes:
        """The next chunk's content; b"" for the last one."""
        size = int((await self.reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        data = await self.reader.readexactly(size + 2)
        assert data[-2:] == b"\r\n"
        return data[:-2]

    async def chunks(self) -> bytes:
        """All chunks to the end."""
        parts = []
        while part := await self.chunk():
            parts.append(part)
        return b"".join(parts)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """A whole answer, by whatever framing it has."""
        status, headers = await self.head()
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            body = await self.chunks()
        else:
            body = await self.reader.read()
        return status, headers, body

    async def error(self) -> tuple[int, str]:
        """Status and code of a refusal in OpenAI's envelope."""
        status, _, body = await self.answer()
        return status, json.loads(body)["error"]["code"]

    async def closed(self) -> bytes:
        """What still comes until the front closes; a reset counts as closed."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        """Leave."""
        self.writer.close()

    def abort(self) -> None:
        """Leave as a killed process does."""
        self.writer.transport.abort()


CHAT = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
STREAM = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'


class World:
    """Front, engine, clients and clock of one scenario."""

    def __init__(self, limits: FrontLimits | None = None) -> None:
        self.time = FakeTime()
        self.engine = ScriptedUpstream()
        self.upstreams = FakeUpstreams(self.engine)
        self.directory = FakeDirectory()
        self.control = FakeControl()
        self.records: list[RequestRecord] = []
        self.recorded = asyncio.Event()
        self.tasks: list[str] = []
        """Names of the tasks the front has made."""
        self.objection: Refusal | None = None
        self.holder: Holder | None = None
        """Whose requests these are."""
        self.serve("m")
        self._running: set[asyncio.Task[Any]] = set()
        self._clients: list[RawClient] = []
        self._limits = limits or FrontLimits()
        self.front: Front
        self.port = 0

    def serve(self, name: str | None, *, model: str | None = None, **wire: Any) -> None:
        """Let *name* be a model; *wire* are fields of its `Wire`."""
        model = model or name or "default"
        self.directory.routes[name] = Route(model, object(), Wire(**{"served_name": model, **wire}))

    async def start(self) -> None:
        """Listen."""
        await self.engine.start()
        ports = FrontPorts(
            directory=self.directory,
            upstreams=self.upstreams,
            refusals=refusals,
            recorder=self._record,
            control=self.control,
            spawn=self._spawn,
            now=self.time,
            request_ids=lambda: f"req-{len(self.records)}",
            authorizer=lambda head: self.objection or self.holder,
            stranger=Guard.build(["127.0.0.1:0"], ()).refuses,
        )
        self.front = Front(ports, limits=self._limits, timer=False)
        (server,) = await self.front.start()
        self.port = server.sockets[0].getsockname()[1]

    async def client(
        self, *, limit: int = 2**22, port: int | None = None, tls: ssl.SSLContext | None = None
    ) -> RawClient:
        """A fresh client connection."""
        opened = await asyncio.open_connection("127.0.0.1", port or self.port, limit=limit, ssl=tls)
        client = RawClient(*opened)
        self._clients.append(client)
        return client

    async def record(self, nth: int = 0) -> RequestRecord:
        """The nth finished request, once it is finished."""
        while len(self.records) <= nth:
            self.recorded.clear()
            await self.recorded.wait()
        return self.records[nth]

    async def turn(self) -> None:
        """Let what was sent on one side be read on the other."""
        for _ in range(3):
            await _turn()

    async def bytes_out(self) -> int:
        """Bytes the one request in flight has been answered so far."""
        await self.turn()
        (connection,) = self.front.clients()
        assert connection.exchange is not None
        return connection.exchange.bytes_out

    def pass_time(self, seconds: float) -> None:
        """Move the clock and let the wheel look once."""
        self.time.value += seconds
        self.front.wheel.tick()

    async def close(self) -> None:
        """End everything, and check that nothing is left held."""
        for client in self._clients:
            client.abort()
        await self.front.close(0)
        if self._running:
            _, stuck = await asyncio.wait(self._running, timeout=5)
            assert not stuck, stuck
        await self.engine.close()
        front = self.front
        for _ in range(10_000):
            if not front.counters.connections:
                break
            await _turn()
        assert front.counters.connections == 0
        assert [lease for lease in self.upstreams.leases if lease.outcome is None] == []
        assert front.counters.in_flight == 0
        assert front.counters.waiting == 0
        assert front.shared.budget.held == 0
        assert not front.shared.drains

    def _spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        self.tasks.append(name)
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _record(self, record: RequestRecord) -> None:
        self.records.append(record)
        self.recorded.set()


async def _turn() -> None:
    """One turn of the loop."""
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await future


Scenario = Callable[[World], Awaitable[None]]
Run = Callable[..., None]
"""`run(scenario)` or `run(scenario, limits=...)`."""
