"""What all connections of one front share: its ports, limits, pool, budgets, wheel and counters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Protocol

from router.answer_head import AnswerHead, parse_answer_head, parse_engine_head
from router.cors import Cors
from router.head_cache import HeadCache
from router.heads import RequestHead, parse_request_head
from router.kept import KeptResponses
from router.limits import BodyBudget, BufferStore
from router.ports import (
    Authorizer,
    ControlDoor,
    Directory,
    FrontLimits,
    Recorder,
    Refusals,
    Stranger,
    Upstreams,
)
from router.turns import Turns
from router.upstream import UpstreamPool
from router.wheel import Wheel


class Stoppable(Protocol):
    """A drain, as far as closing goes."""

    def stop(self) -> None: ...


class Spawn(Protocol):
    """Starts a task that somebody holds: `supervisor.tasks.TaskScope.spawn`."""

    def __call__(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]: ...


def request_ids(prefix: str) -> Callable[[], str]:
    """Ids `<prefix>-<n in hex>`; the prefix tells one run of the daemon from another."""
    numbers = count(1)
    return lambda: f"{prefix}-{next(numbers):x}"


@dataclass(frozen=True, slots=True)
class FrontPorts:
    """Everything the front needs from the rest of the house; met in the composition root only."""

    directory: Directory
    upstreams: Upstreams
    refusals: Refusals
    recorder: Recorder
    control: ControlDoor
    spawn: Spawn
    now: Callable[[], float]
    """Monotonic seconds, `loop.time` or a test's own."""
    request_ids: Callable[[], str]
    authorizer: Authorizer | None = None
    """None lets everybody in."""
    cors: Cors = field(default_factory=lambda: Cors(()))
    stranger: Stranger | None = None
    """Looks at what is asked of an engine as it is; None lets every web page in."""


@dataclass(slots=True)
class Counters:
    """Plain integers, read by the metrics page whenever it likes."""

    connections: int = 0
    """Client connections open now."""
    connections_total: int = 0
    in_flight: int = 0
    """Requests between their head and their last byte."""
    waiting: int = 0
    """Of these, requests without a lease yet."""
    requests_total: int = 0
    refused_total: int = 0
    retried_total: int = 0
    client_gone_total: int = 0
    upstream_failed_total: int = 0


class Shared:
    """See the module. One per front; no part of it is global."""

    __slots__ = (
        "_idle", "authorizer", "budget", "buffers", "connections_of", "control", "control_heads",
        "control_turns", "cors", "counters", "directory", "drains",
        "engine_heads", "kept", "limits", "now", "pool", "recorder", "refusals", "request_heads",
        "request_id", "spawn", "stranger", "upstreams", "wheel",
    )  # fmt: skip

    def __init__(self, ports: FrontPorts, limits: FrontLimits, wheel: Wheel) -> None:
        self.authorizer = ports.authorizer
        self.cors = ports.cors
        self.connections_of: dict[str, int] = {}
        """Connections open now, by client."""
        self.request_id = ports.request_ids
        self.directory = ports.directory
        self.upstreams = ports.upstreams
        self.refusals = ports.refusals
        self.recorder = ports.recorder
        self.control = ports.control
        self.control_turns = Turns()
        """Requests to the control app that come together begin one a round."""
        self.stranger = ports.stranger
        self.spawn = ports.spawn
        self.now = ports.now
        self.limits = limits
        self.wheel = wheel
        self.pool = UpstreamPool(now=ports.now, idle=limits.idle_upstream)
        self.budget = BodyBudget(total=limits.buffered_bytes_total, per_model=limits.buffered_bytes_per_model)
        self.buffers = BufferStore()
        self.counters = Counters()
        self.kept = KeptResponses()
        fields = limits.header_count
        self.request_heads: HeadCache[RequestHead] = HeadCache(partial(parse_request_head, max_fields=fields))
        self.engine_heads: HeadCache[AnswerHead] = HeadCache(parse_engine_head)
        self.control_heads: HeadCache[AnswerHead] = HeadCache(parse_answer_head)
        self.drains: set[Stoppable] = set()
        """Answers whose client is gone and which are read on."""
        self._idle: asyncio.Future[None] | None = None

    def exchange_ended(self) -> None:
        """One request less in flight."""
        self.counters.in_flight -= 1
        if self._idle is not None and self.counters.in_flight == 0 and not self._idle.done():
            self._idle.set_result(None)

    async def idle(self, grace: float) -> None:
        """Wait until nothing is in flight, for at most *grace* seconds."""
        if self.counters.in_flight == 0 or grace <= 0:
            return
        self._idle = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._idle,), timeout=grace)
