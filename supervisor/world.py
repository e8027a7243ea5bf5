"""All of the world an instance touches, and whom it reports to. Met only in `router.wiring` and in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from registry.engine import DeviceId, Diagnosis
from registry.model import Model
from supervisor.errors import ModelFailedError
from supervisor.ports import (
    Busyness,
    ChildRecord,
    Clock,
    EventSink,
    ExitReport,
    Journal,
    Launcher,
    MemoryProbe,
    PortSource,
    Readiness,
)

if TYPE_CHECKING:
    from supervisor.instance import Instance


@dataclass(frozen=True, slots=True)
class World:
    """The ports, and small functions that are not deterministic or not ours."""

    clock: Clock
    launcher: Launcher
    readiness: Readiness
    busyness: Busyness
    memory: MemoryProbe
    ports: PortSource
    journal: Journal
    emit: EventSink
    diagnose: Callable[[Model, ExitReport], Diagnosis]
    new_key: Callable[[], str]
    """A fresh random API key for an engine that can demand one."""
    jitter: Callable[[], float]
    """A number in [0, 1)."""
    storage: Callable[[], str]
    """Why nothing can be written where trees need it; "" when all is well."""
    fault: Callable[[Exception], None]
    """Told of an error that is ours to mend, where nobody above could do anything about it."""


class Owner(Protocol):
    """Told what its instance did; the fleet is it."""

    def published(self, instance: Instance) -> None:
        """It may be leased from now on."""
        ...

    def withdrawn(self, instance: Instance) -> None:
        """It may not any more; leases that are out stay valid."""
        ...

    def reclaimed(self, record: ChildRecord, reserved: Mapping[DeviceId, int]) -> None:
        """Its tree is empty, and *reserved* is no longer set aside for it."""
        ...

    def failed(self, instance: Instance, error: ModelFailedError) -> None:
        """Starting failed: answer those who wait."""
        ...

    def rested(self, instance: Instance) -> None:
        """Its last lease came back, and a request had said how long it stays then."""
        ...

    def changed(self, instance: Instance) -> None:
        """Its mailbox is empty and its state is another than before."""
        ...
