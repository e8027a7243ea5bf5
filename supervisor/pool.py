"""Leases and the queues before them: bounded, first come first served per model, nothing lost.

Two verbs. `lease_now` is the warm path: a dict lookup and a counter. `ask` is the slow one: it joins the
model's queue and is answered exactly once, by a lease, an error, or its own cancelling.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from registry.engine import ModelId
from supervisor.errors import QueueFullError, SupervisorError, WaitTimeoutError
from supervisor.instance import Instance
from supervisor.policy import Policy
from supervisor.ports import Clock, Timer

LOOPBACK = "127.0.0.1"


FAILED = "upstream_failed"
"""The one outcome of a lease (`router.ports.Outcome`) that makes us look at its instance."""


class InstanceLease:
    """One request's claim on an instance. `release` gives it back, once; a second call does nothing."""

    __slots__ = ("_instance", "_pool", "_released", "generation", "key", "port", "revoked")

    host = LOOPBACK
    tls = False

    def __init__(self, instance: Instance, pool: Pool) -> None:
        child = instance.child
        assert child is not None, f"{instance.id} is published without a tree"
        record = child.record
        self._instance = instance
        self._pool = pool
        self._released = False
        self.revoked = False
        self.port = record.port
        self.key = record.key
        self.generation = record.pid
        instance.leases += 1
        instance.given += 1
        instance.held[self] = pool.now()

    def __repr__(self) -> str:
        return f"<Lease {self._instance.id} port={self.port} released={self._released}>"

    def keep(self, seconds: float) -> None:
        """Let the instance stay so long (inf: for ever) after its last lease, if nobody says otherwise
        later."""
        if not self._released:
            self._instance.keep(seconds)

    def release(self, outcome: str) -> None:
        """Give it back; an outcome of `FAILED` also puts the instance in doubt."""
        if self._released:
            return
        self._released = True
        instance, pool = self._instance, self._pool
        del instance.held[self]
        if outcome == FAILED or pool.waiting:
            pool.returned(instance, self.generation, failed=outcome == FAILED)
        else:
            instance.lease_returned()  # what `returned` does when nobody waits


@dataclass(slots=True, eq=False)
class Waiter:
    """A place in a queue."""

    model: ModelId
    since: float
    granted: Callable[[InstanceLease], None]
    refused: Callable[[SupervisorError], None]
    pool: Pool
    timer: Timer | None = None
    over: bool = False
    priority: int = 0
    left: Callable[[], None] = lambda: None
    """Told when it goes unanswered."""

    def cancel(self) -> None:
        """Give the place back; harmless when it has been answered."""
        self.pool.leave(self)


class PoolOwner(Protocol):
    """Told when demand or use changed; the fleet is it."""

    def demand_changed(self, model: ModelId) -> None:
        """A queue or the number of leases of *model* changed."""
        ...

    def doubted(self, instance: Instance, generation: int) -> None:
        """A request failed on that incarnation."""
        ...

    def phase(self, model: ModelId) -> str:
        """What those who wait for *model* wait for, for the time-out's message."""
        ...

    def comes_back_in(self, model: ModelId) -> float:
        """Seconds after which another try makes sense for whoever is sent away."""
        ...


class Pool:
    """Published instances and queues of all models."""

    def __init__(self, clock: Clock, policy: Policy, owner: PoolOwner) -> None:
        self._clock = clock
        self.now = clock.now
        self._policy = policy
        self._owner = owner
        self._ready: dict[ModelId, Instance] = {}
        self._queues: dict[ModelId, deque[Waiter]] = {}
        self.waiting = 0
        """In all queues together."""

    # -- the warm path -----------------------------------------------------------------------------

    def lease_now(self, model: ModelId) -> InstanceLease | None:
        """A lease on a ready instance with a free slot; None when there is none or others wait before."""
        instance = self._ready.get(model)
        if instance is None or (self._queues and model in self._queues):
            return None
        limit = instance.model.concurrency
        if limit is not None and instance.leases >= limit:
            return None
        return InstanceLease(instance, self)

    def lease_of(self, model: ModelId, generation: int) -> InstanceLease | None:
        """A lease on that incarnation of *model*, also beyond its slots: for a short word about work it has
        already. None when it is not, or no longer, ready."""
        instance = self._ready.get(model)
        if instance is None or instance.child is None or instance.child.record.pid != generation:
            return None
        return InstanceLease(instance, self)

    # -- the slow path -----------------------------------------------------------------------------

    def ask(
        self,
        model: ModelId,
        *,
        timeout: float,
        priority: int = 0,
        granted: Callable[[InstanceLease], None],
        refused: Callable[[SupervisorError], None],
    ) -> Waiter:
        """Join the queue for *model* for at most *timeout* seconds. Raises QueueFullError.

        A place before those of a lower *priority*, as far as they have not waited for `max_wait` yet.
        """
        queue = self._queues.get(model)
        if queue is not None and len(queue) >= self._policy.queue_per_model:
            raise QueueFullError(
                f"{len(queue)} requests wait for {model} already (admission.queue_per_model)",
                retry_after=self._owner.comes_back_in(model),
            )
        if self.waiting >= self._policy.queue_total:
            raise QueueFullError(
                f"{self.waiting} requests wait already (admission.queue_total)",
                retry_after=self._owner.comes_back_in(model),
            )
        if queue is None:
            queue = self._queues[model] = deque()
        waiter = Waiter(model, self._clock.now(), granted, refused, self, priority=priority)
        self._stand_in(queue, waiter)
        self.waiting += 1
        waiter.timer = self._clock.call_later(timeout, lambda: self._timed_out(waiter, timeout))
        self._owner.demand_changed(model)
        return waiter

    def _stand_in(self, queue: deque[Waiter], waiter: Waiter) -> None:
        place = len(queue)
        overdue = waiter.since - self._policy.max_wait
        while place and queue[place - 1].priority < waiter.priority and queue[place - 1].since > overdue:
            place -= 1
        queue.insert(place, waiter)

    def leave(self, waiter: Waiter) -> None:
        """The waiter goes unanswered: its client has left."""
        if not waiter.over:
            self._take_out(waiter)
            waiter.left()
            self._owner.demand_changed(waiter.model)

    def _timed_out(self, waiter: Waiter, timeout: float) -> None:
        if waiter.over:
            return
        phase = self._owner.phase(waiter.model)
        self._take_out(waiter)
        waiter.refused(
            WaitTimeoutError(
                f"waited {timeout:.0f} s for {waiter.model} (admission.request_timeout); last: {phase}",
                retry_after=self._owner.comes_back_in(waiter.model),
            )
        )
        self._owner.demand_changed(waiter.model)

    def _take_out(self, waiter: Waiter) -> None:
        queue = self._queues[waiter.model]
        queue.remove(waiter)
        self._over(waiter)
        if not queue:
            del self._queues[waiter.model]

    def _over(self, waiter: Waiter) -> None:
        waiter.over = True
        self.waiting -= 1
        if waiter.timer is not None:
            waiter.timer.cancel()

    # -- instances ---------------------------------------------------------------------------------

    def publish(self, instance: Instance) -> None:
        """Lease it from now on, first to those who wait."""
        self._ready[instance.id] = instance
        self.grant(instance.id)

    def withdraw(self, instance: Instance) -> None:
        """Lease it no more."""
        self._ready.pop(instance.id, None)

    def grant(self, model: ModelId) -> None:
        """Hand free slots to those who wait, first come first served."""
        while (instance := self._ready.get(model)) is not None:
            queue = self._queues.get(model)
            limit = instance.model.concurrency
            if queue is None or (limit is not None and instance.leases >= limit):
                return
            waiter = queue.popleft()
            self._over(waiter)
            if not queue:
                del self._queues[model]
            waiter.granted(InstanceLease(instance, self))

    def fail(self, model: ModelId, error: SupervisorError) -> int:
        """Refuse everybody who waits for *model*; how many."""
        queue = self._queues.pop(model, None)
        if queue is None:
            return 0
        for waiter in queue:
            self._over(waiter)
        for waiter in queue:
            waiter.refused(error)
        return len(queue)

    def returned(self, instance: Instance, generation: int, *, failed: bool) -> None:
        """A lease came back."""
        instance.lease_returned()
        if failed:
            self._owner.doubted(instance, generation)
        if instance.id in self._queues:
            self.grant(instance.id)
        # Only somebody who waits can want the memory of an instance that has become idle: the warm path
        # must not pay for a look at the whole fleet.
        if self.waiting and instance.leases == 0:
            self._owner.demand_changed(instance.id)

    # -- pictures ----------------------------------------------------------------------------------

    def queue_length(self, model: ModelId) -> int:
        """How many wait for *model*."""
        queue = self._queues.get(model)
        return len(queue) if queue is not None else 0

    def oldest_wait(self, model: ModelId) -> float:
        """Seconds the longest waiting has waited; 0 when nobody waits."""
        queue = self._queues.get(model)
        # Where all are equal the first is the oldest; a priority stands before older ones.
        return self._clock.now() - min(waiter.since for waiter in queue) if queue else 0.0

    def priority(self, model: ModelId) -> int:
        """The highest of those who wait for *model*; 0 when nobody waits."""
        queue = self._queues.get(model)
        return max(waiter.priority for waiter in queue) if queue else 0

    def models_waited_for(self) -> tuple[ModelId, ...]:
        """Models with a queue."""
        return tuple(self._queues)
