"""Bugs that the simulator must find, as patches of the real code. Each is one that somebody could write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from registry.engine import DeviceId, ModelId
from supervisor import admission, pool, reaper, reaping, scheduler
from supervisor.admission import FleetPicture
from supervisor.errors import SupervisorError
from supervisor.instance import Instance
from supervisor.lifecycle import Event, State
from supervisor.policy import Policy
from supervisor.pool import FAILED, InstanceLease, Pool
from supervisor.reaping import Reaping

Patch = tuple[object, str, object]


@contextmanager
def applied(patches: tuple[Patch, ...]) -> Iterator[None]:
    """The real code with *patches*, for as long as the context is open."""
    before = [(where, name, getattr(where, name)) for where, name, _ in patches]
    try:
        for where, name, value in patches:
            setattr(where, name, value)
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)


def _skip_a_reservation() -> tuple[Patch, ...]:
    def start(self: Instance, reserve: Mapping[DeviceId, int], place: int = 0) -> None:
        self.post(Event.WANTED)

    return ((Instance, "start", start),)


def _lose_a_waiter() -> tuple[Patch, ...]:
    right = Pool.fail

    def fail(self: Pool, model: ModelId, error: SupervisorError) -> int:
        queue = self._queues.get(model)
        if queue is not None and len(queue) > 1:
            self._over(queue.pop())
        return right(self, model, error)

    return ((Pool, "fail", fail),)


def _evict_a_busy_one() -> tuple[Patch, ...]:
    right = admission.decide

    def decide(picture: FleetPicture, policy: Policy) -> admission.Plan:
        blind = tuple(replace(model, leases=0) for model in picture.models)
        return right(replace(picture, models=blind), policy)

    return ((scheduler, "decide", decide),)


def _ignore_the_queue_on_the_fast_path() -> tuple[Patch, ...]:
    def lease_now(self: Pool, model: ModelId) -> InstanceLease | None:
        found = self._ready.get(model)
        if found is None:
            return None
        limit = found.model.concurrency
        if limit is not None and found.leases > limit:
            return None
        return InstanceLease(found, self)

    return ((Pool, "lease_now", lease_now),)


def _count_one_lease_twice() -> tuple[Patch, ...]:
    def release(self: InstanceLease, outcome: str) -> None:
        self._instance.held.pop(self, None)
        if self._instance.leases:
            self._pool.returned(self._instance, self.generation, failed=outcome == FAILED)

    return ((InstanceLease, "release", release),)


def _give_memory_back_at_the_first_signal() -> tuple[Patch, ...]:
    right = Instance._terminate

    def terminate(self: Instance) -> None:
        right(self)
        self.holding.reserved = {}

    return ((Instance, "_terminate", terminate),)


def _starve_whoever_needs_a_busy_ones_memory() -> tuple[Patch, ...]:
    right = admission.decide

    def decide(picture: FleetPicture, policy: Policy) -> admission.Plan:
        return right(picture, replace(policy, max_wait=1e9))

    return ((scheduler, "decide", decide),)


def _let_the_small_overtake() -> tuple[Patch, ...]:
    right = admission.decide

    def decide(picture: FleetPicture, policy: Policy) -> admission.Plan:
        size = {m.model: sum(m.need.values()) for m in picture.models}
        small_first = tuple(
            replace(m, oldest_wait=m.oldest_wait and 1e6 - size[m.model] / 2**30) for m in picture.models
        )
        return right(replace(picture, models=small_first), policy)

    return ((scheduler, "decide", decide),)


def _forget_that_one_measures_free_memory() -> tuple[Patch, ...]:
    right = admission.decide

    def decide(picture: FleetPicture, policy: Policy) -> admission.Plan:
        social = tuple(replace(model, starts_alone=False) for model in picture.models)
        return right(replace(picture, models=social), policy)

    return ((scheduler, "decide", decide),)


def _reap_one_in_use() -> tuple[Patch, ...]:
    right = reaping.reap

    def reap(instances: Any) -> Reaping:
        return right(replace(one, leases=0) for one in instances)

    return ((reaper, "reap", reap),)


def _forget_a_stop_that_overtakes_the_birth() -> tuple[Patch, ...]:
    right = Instance.on_spawned

    def on_spawned(self: Instance, child: Any) -> None:
        if self.state is State.STARTING:
            right(self, child)
        else:
            self.child = child

    return ((Instance, "on_spawned", on_spawned),)


def _forget_who_left_the_queue() -> tuple[Patch, ...]:
    def leave(self: Pool, waiter: pool.Waiter) -> None:
        if not waiter.over:
            self._owner.demand_changed(waiter.model)

    return ((Pool, "leave", leave),)


def _evict_what_was_just_loaded() -> tuple[Patch, ...]:
    right = admission.decide

    def decide(picture: FleetPicture, policy: Policy) -> admission.Plan:
        return right(picture, replace(policy, min_residency=0.0, settle=0.0))

    return ((scheduler, "decide", decide),)


def _start_without_end_side_by_side() -> tuple[Patch, ...]:
    right = admission.decide

    def decide(picture: FleetPicture, policy: Policy) -> admission.Plan:
        return right(picture, replace(policy, max_parallel_starts=99))

    return ((scheduler, "decide", decide),)


def _set_memory_aside_on_one_device_and_start_on_another() -> tuple[Patch, ...]:
    right = Instance.start

    def start(self: Instance, reserve: Mapping[DeviceId, int], place: int = 0) -> None:
        right(self, reserve)

    return ((Instance, "start", start),)


SEEDED: Mapping[str, Callable[[], tuple[Patch, ...]]] = {
    "skip a reservation": _skip_a_reservation,
    "lose a waiter": _lose_a_waiter,
    "evict a busy one": _evict_a_busy_one,
    "ignore the queue on the fast path": _ignore_the_queue_on_the_fast_path,
    "count one lease twice": _count_one_lease_twice,
    "give memory back at the first signal": _give_memory_back_at_the_first_signal,
    "starve whoever needs a busy one's memory": _starve_whoever_needs_a_busy_ones_memory,
    "let the small overtake": _let_the_small_overtake,
    "forget that one measures free memory": _forget_that_one_measures_free_memory,
    "reap one in use": _reap_one_in_use,
    "forget a stop that overtakes the birth": _forget_a_stop_that_overtakes_the_birth,
    "forget who left the queue": _forget_who_left_the_queue,
    "evict what was just loaded": _evict_what_was_just_loaded,
    "start without end side by side": _start_without_end_side_by_side,
    "set memory aside on one device and start on another": (
        _set_memory_aside_on_one_device_and_start_on_another
    ),
}

ON_GPUS = frozenset({"set memory aside on one device and start on another"})
"""Bugs that only worlds with several GPUs show."""
