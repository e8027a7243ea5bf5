"""Frozen pictures of the fleet: what `/status`, `/metrics`, `/api` and the CLI show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from config.vocabulary import EngineName
from registry.engine import DeviceId, ModelId
from supervisor.lifecycle import State


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A memory pool: what it has, what instances may take, what is reserved and what was measured."""

    id: DeviceId
    name: str
    total_bytes: int
    budget_bytes: int
    reserved_bytes: int
    used_bytes: int | None
    """Measured, of everything on the device; None where it cannot be measured."""
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """What an instance has of one device."""

    device: DeviceId
    reserved_bytes: int
    """What admission holds for it there."""
    measured_bytes: int | None
    """What its process tree was last seen to hold there; None where that was not measured."""


@dataclass(frozen=True, slots=True)
class FailureView:
    """Why the last incarnation ended or did not come up."""

    cause: str
    remedy: str
    code: str
    at: float
    """Unix seconds."""
    incarnation: int


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One model that the supervisor knows, with its instance's state (STOPPED when it has none)."""

    model: ModelId
    engine: EngineName
    state: State
    incarnation: int
    pid: int | None
    port: int | None
    since: float
    """Unix seconds of the last change of state."""
    leases: int
    """Requests in flight."""
    oldest_lease_seconds: float
    """Age of the oldest request in flight; 0 when there is none."""
    waiting: int
    """Requests that wait for it."""
    oldest_wait_seconds: float
    note: str
    """What it is doing or what it waits for, for people; "" when there is nothing to say."""
    progress: float | None
    """0..1 while starting: of the whole once a load time was learned, before that of the step, as the engine
    says; None when nothing tells."""
    eta_seconds: float | None
    """Seconds until it is ready; None before the first complete start."""
    idle_seconds: float | None
    """Since the last lease ended; None while leased or not running."""
    ttl: float
    pinned: bool
    reserved_bytes: int
    """On all devices."""
    measured_bytes: int | None
    shares: tuple[DeviceShare, ...]
    """The same by device, sorted by its id: those where it has something reserved or measured."""
    crashes: int
    """In the crash window."""
    starts: int
    """Spawns since the daemon started."""
    retry_in_seconds: float | None
    """In BACKOFF and FAILED: until the next try is allowed."""
    last_failure: FailureView | None
    log: str | None
    """Path of the current log file."""
    keep_alive: float | None = None
    """Seconds that it stays, idle, because a request said so, instead of `ttl`; -1: for ever; None: `ttl`."""


@dataclass(frozen=True, slots=True)
class FleetView:
    """Everything at one moment."""

    at: float
    """Unix seconds."""
    instances: tuple[InstanceView, ...]
    """One per model that we could start, sorted by id."""
    devices: tuple[DeviceView, ...]
    waiting: int
    stopping: bool
    """The daemon is shutting down."""
    hindrance: str = ""
    """Why no load could make progress; "" when some model serves, is on its way or could be started, and
    where every model fails: they say themselves why."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was decided for a model, or happened to it."""

    at: float
    """Unix seconds."""
    kind: str
    """`asked`, `waits`, `evict`, `start`, `ready`, `failed`, `refuse` …"""
    text: str
    """In words."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The numbers it was decided on."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request waited."""

    request: str
    model: ModelId
    asked: float
    """Unix seconds."""
    waited: float
    """Seconds; until now, if it still waits."""
    outcome: str
    """`waiting`, `served`, `refused` or `gone` (its client left)."""
    steps: tuple[Step, ...]
    """Oldest first."""


class Fleet(Protocol):
    """What control may see and do; `supervisor.fleet.Supervisor` is it."""

    def view(self) -> FleetView:
        """The fleet now."""
        ...

    def instance(self, model: ModelId) -> InstanceView | None:
        """One of it; None for a model the supervisor does not own."""
        ...

    def explain(self, request: str) -> Explanation | None:
        """Why the request of that id waited; None when none has, or too many have since."""
        ...

    async def load(self, model: ModelId, *, timeout: float | None = None) -> InstanceView:
        """Start it and wait until it is ready. Raises a `SupervisorError` as a request would."""
        ...

    def pin(self, model: ModelId, *, pinned: bool) -> InstanceView:
        """Keep it when others want its memory and when it idles, or no more; until the daemon ends."""
        ...

    async def unload(self, model: ModelId, *, force: bool = False) -> InstanceView:
        """Drain it (or, by *force*, cut what is in flight), stop it and wait until its tree is gone."""
        ...
