"""The front alone, with everything on: `python bench/front_server.py PORT UPSTREAM_PORT`.

Directory and upstreams are static (there is no supervisor here); lookup, lease, metrics and the access log
run as in the daemon.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from registry.capability import Endpoint
from registry.engine import Wire
from router.access_log import AccessLog
from router.front import Front
from router.metrics import Metrics
from router.ports import Holder, Outcome, Refusal, RequestRecord, Route
from router.shared import FrontPorts, request_ids
from supervisor.clock import SystemClock
from supervisor.tasks import TaskScope


@dataclass(slots=True)
class StaticLease:
    """A lease on the one upstream."""

    upstreams: StaticUpstreams
    port: int
    host: str = "127.0.0.1"
    key: str = "sk-engine"
    generation: int = 1
    tls: bool = False
    released: bool = False

    def release(self, outcome: Outcome) -> None:
        if not self.released:
            self.released = True
            self.upstreams.held -= 1


class StaticUpstreams:
    """Always ready."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.held = 0

    def lease_now(self, route: Route) -> StaticLease:
        self.held += 1
        return StaticLease(self, self.port)

    async def lease(
        self, route: Route, *, timeout: float | None = None, request: str = "", priority: int = 0
    ) -> StaticLease:
        return self.lease_now(route)

    def ready_in(self, route: Route) -> float | None:
        return None

    def waiting_note(self, route: Route) -> str:
        return f"loading {route.model}"


class StaticDirectory:
    """A few hundred models, of which `mock` is asked for."""

    def __init__(self) -> None:
        names = ["mock", *(f"org/model-{i}" for i in range(300))]
        self.routes = {name: Route(name, name, Wire(name, frozenset((name,)))) for name in names}

    def route(self, name: str | None, endpoint: Endpoint, holder: Holder | None = None) -> Route:
        return self.routes[name or "mock"]


class NoControl:
    """Nobody asks for the control app here."""

    def open(self, client: str, holder: Holder | None = None) -> object:
        raise ConnectionError("no control app in this benchmark")


def refusals(error: BaseException) -> Refusal:
    """Everything is an error of the benchmark."""
    return Refusal(404, "model_not_found", repr(error))


async def main() -> None:
    """Serve until killed."""
    port, upstream = int(sys.argv[1]), int(sys.argv[2])
    loop = asyncio.get_running_loop()
    clock = SystemClock(loop)
    directory = StaticDirectory()
    metrics = Metrics(version="bench", models=list(directory.routes))
    sink = os.open(os.devnull, os.O_WRONLY)

    def write(lines: str) -> None:
        os.write(sink, lines.encode())

    log = AccessLog(write, style="json", clock=clock)

    def record(entry: RequestRecord) -> None:
        metrics.record(entry)
        log(entry)

    ports = FrontPorts(
        directory=directory,
        upstreams=StaticUpstreams(upstream),
        refusals=refusals,
        recorder=record,
        control=NoControl(),
        spawn=TaskScope().spawn,
        now=loop.time,
        request_ids=request_ids("bench"),
        authorizer=None,
    )
    front = Front(ports)
    await front.start(host="127.0.0.1", port=port)
    gc.collect()
    gc.freeze()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
