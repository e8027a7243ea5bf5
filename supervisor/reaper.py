"""Stops instances that have been idle for their ttl; asks the engine first, where it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from registry.engine import ModelId
from supervisor.instance import Instance
from supervisor.lifecycle import State
from supervisor.picture import idleness
from supervisor.pool import Pool
from supervisor.ports import EventKind, Timer
from supervisor.reaping import reap
from supervisor.world import World

ASK_AGAIN = 1.0
"""Seconds until an engine that is to go at once, and is still at work, is asked again."""


class Reaper:
    """Looks when something may have become idle for long enough, and no sooner."""

    def __init__(
        self, world: World, pool: Pool, instances: Mapping[ModelId, Instance], emit: Callable[..., None]
    ) -> None:
        """*emit(kind, model, **data)* reports."""
        self._world = world
        self._pool = pool
        self._instances = instances
        self._emit = emit
        self._timer: Timer | None = None
        self._asked: set[ModelId] = set()
        self._closed = False

    def look(self) -> None:
        """Stop what has been idle for its ttl, and look again when the next may be."""
        self._disarm()
        if self._closed:
            return
        now = self._world.clock.now()
        found = reap(idleness(self._instances.values(), self._pool, now=now))
        if found.look_again_in is not None:
            self._timer = self._world.clock.call_later(found.look_again_in, self.look)
        for model in found.stop:
            self._consider(self._instances[model])

    def close(self) -> None:
        """Stop nothing any more."""
        self._closed = True
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _consider(self, instance: Instance) -> None:
        record, page = instance.record, instance.spec.busy if instance.spec is not None else None
        if page is None or record is None:
            self._stop(instance)
        elif instance.id not in self._asked:
            self._asked.add(instance.id)
            since = (instance.incarnation, instance.idle_since)
            self._world.busyness.ask(record, page, partial(self._heard, instance, since))

    def _heard(self, instance: Instance, since: tuple[int, float], at_work: int | None) -> None:
        """The engine has answered; None: it does not say, and what we know has to do."""
        self._asked.discard(instance.id)
        if self._closed:
            return
        unused = instance.leases == 0 and not self._pool.queue_length(instance.id)
        same = (instance.incarnation, instance.idle_since) == since and instance.state is State.READY
        if same and unused and not at_work and not instance.pinned:
            self._stop(instance)
            return
        if same and at_work:
            # Not by our requests: ask again when it has had its time once more.
            instance.idle_since = self._world.clock.now()
            if instance.kept == 0:
                instance.kept = ASK_AGAIN
        self.look()

    def _stop(self, instance: Instance) -> None:
        data: dict[str, Any] = {"ttl": instance.stays}
        self._emit(EventKind.REAPED, instance.id, **data)
        instance.stop()
