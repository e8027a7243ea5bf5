"""Listeners of one incarnation: news of an earlier one is dropped here, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.lifecycle import Event, State
from supervisor.ports import Child, ExitReport

if TYPE_CHECKING:
    from supervisor.instance import Instance


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
            self._instance.note = note
