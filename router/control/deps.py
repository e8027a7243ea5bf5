"""What the control app is given: small protocols and plain callables, met only in `router.wiring`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from config.load import Draft
from config.schema import SeedConfig, VirtualConfig
from registry.engine import ModelId
from registry.model import Model
from router.auth import Auth
from router.control.events import EventRing
from router.metrics import Metrics
from router.reloading import Applied, ConfigStanding, Planned
from supervisor.ports import Clock
from supervisor.tasks import Spawn
from supervisor.view import Fleet


class CatalogView(Protocol):
    """The part of the registry's catalog that control shows."""

    @property
    def models(self) -> Mapping[ModelId, Model]:
        """Every model that can be asked for, by id."""
        ...

    @property
    def default_model(self) -> str | None:
        """Served when a request names none."""
        ...

    @property
    def virtual(self) -> Mapping[str, VirtualConfig]:
        """Names that are served by one of several of them."""
        ...


class Configuration(Protocol):
    """What control may ask of reloads; `router.reloading.Reloading` is it."""

    @property
    def standing(self) -> ConfigStanding:
        """How the daemon stands to its file."""
        ...

    async def plan(self, draft: Draft | None) -> Planned:
        """What `apply` would do, or would do if *draft* were the file. Raises ConfigError."""
        ...

    async def apply(self) -> Applied:
        """Put the file into force. Raises ConfigError, and then nothing has changed."""
        ...

    async def settled(self, applied: Applied) -> None:
        """Return when every model that is restarted because of it is ready, or has been put back."""
        ...


@dataclass(frozen=True, slots=True)
class FrontStats:
    """What the front has open now."""

    connections: int = 0
    in_flight: int = 0
    """Requests whose answer is not complete."""
    buffered_bytes: int = 0
    """Of request bodies."""


@dataclass(frozen=True, slots=True)
class ControlDeps:
    """Everything the control app needs; nothing in it is reached any other way."""

    fleet: Fleet
    catalog: Callable[[], CatalogView]
    """The catalog now; a reload replaces it."""
    resolve: Callable[[str], Model]
    """A name (id, alias …) to its model; virtual names are refused. Raises a `RegistryError`."""
    pick: Callable[[str | None], Model]
    """As `resolve`; a virtual name is the model that would serve it now, None the default one."""
    entry: Callable[[Model, str], Mapping[str, Any]]
    """A model and its state as one entry of `/v1/models`: `registry.catalog.openai_entry`."""
    events: EventRing
    metrics: Metrics
    front: Callable[[], FrontStats]
    requests_per_second: Callable[[], float]
    clock: Clock
    spawn: Spawn
    version: str
    pid: int
    listen: tuple[str, ...]
    """Addresses the daemon listens on, `host:port`."""
    started: float
    """`clock.now()` when the daemon started."""
    configuration: Configuration
    host_names: frozenset[str] = frozenset()
    """Further names that a `Host` header may carry while we listen on loopback only."""
    seed: Callable[[], SeedConfig] = SeedConfig
    """The settings of `/api/v1/inference` now; a reload replaces them."""
    hand_over: Callable[[], Coroutine[Any, Any, int]] | None = None
    """Lets a new process take over and returns its pid; None where that cannot be. Raises HandOverError."""
    auth: Auth = field(default_factory=Auth.off)
    """Keys and sessions."""
