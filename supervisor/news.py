"""Listeners of one incarnation: news of an earlier one is dropped here, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.lifecycle import Event, State
from supervisor.ports import Child, ChildRecord, ExitReport

if TYPE_CHECKING:
    from supervisor.instance import Instance
    from supervisor.world import World


class ChildNews:
    """`ChildListener` of one incarnation."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._incarnation = instance.incarnation

    @property
    def _current(self) -> bool:
        return self._instance.incarnation == self._incarnation

    def spawned(self, child: Child) -> None:
        """Hand it on; a tree that comes too late is ended, for nobody else ever would."""
        if self._current:
            self._instance.on_spawned(child)
        else:
            child.kill()

    def spawn_failed(self, reason: str) -> None:
        """Hand it on."""
        if self._current:
            self._instance.on_spawn_failed(reason)

    def exited(self, report: ExitReport) -> None:
        """Hand it on."""
        if self._current:
            self._instance.on_exited(report)


class ReadinessNews:
    """`ReadinessListener` of one incarnation."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._incarnation = instance.incarnation

    @property
    def _current(self) -> bool:
        instance = self._instance
        return instance.incarnation == self._incarnation and instance.state is State.STARTING

    def ready(self) -> None:
        """Hand it on."""
        if self._current:
            self._instance.post(Event.READY)

    def not_ready(self, reason: str, *, code: str = "") -> None:
        """Hand it on."""
        if self._current:
            self._instance.on_not_ready(reason, code)

    def progress(self, note: str) -> None:
        """Hand it on."""
        if self._current:
            self._instance.on_progress(note)


class Unwanted:
    """`ChildListener` for a survivor nobody wants: ended, and forgotten when it is gone."""

    def __init__(self, record: ChildRecord, world: World) -> None:
        self._record = record
        self._world = world

    def spawned(self, child: Child) -> None:
        """End it."""
        child.kill()

    def spawn_failed(self, reason: str) -> None:
        """It had gone by itself."""
        self._world.journal.child_ended(self._record)

    def exited(self, report: ExitReport) -> None:
        """Forget it."""
        self._world.journal.child_ended(self._record)
