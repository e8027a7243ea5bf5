"""I1 to I10 of the design, checked after every event of a simulation, from books of its own.

What the supervisor says of itself is never believed where it can be counted here: leases, queues, waiting
times, live trees and the memory they hold are kept anew, by model.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from registry.engine import HOST, DeviceId, LaunchSpec, ModelId
from supervisor.instance import KILL_MARGIN, Instance
from supervisor.lifecycle import WITH_TREE, State
from supervisor.policy import Policy
from supervisor.ports import EventKind, SupervisorEvent
from tests.sim.trace import START_LIMIT
from tests.support.fakes import FakeClock, Fleet

SLACK = 0.2
"""Seconds that no bound is about: a spawn, a look at a timer."""


class ViolationError(AssertionError):
    """An invariant does not hold. The text begins with its number."""


@dataclass(slots=True, eq=False)
class Asked:
    """A request, as its client sees it."""

    model: ModelId
    since: float
    ahead: int
    """Models that others waited for before it came."""
    faults: int
    """Misfortunes of the fleet before it came."""
    full: float
    """Seconds that all slots of its model had been taken before it came."""
    turns: int = 0
    """Times its model had been stopped for another before it came."""
    waits: bool = True
    ended: str = ""
    """served, refused or gone; exactly once."""

    def end(self, how: str) -> None:
        """I4: once."""
        if self.ended:
            raise ViolationError(f"I4: a request for {self.model} is {how} after it was {self.ended}")
        self.ended = how
        self.waits = False


@dataclass(slots=True)
class Books:
    """What is known here of one model."""

    queue: deque[Asked] = field(default_factory=deque)
    waiting: int = 0
    out: int = 0
    """Leases that are out."""
    state: State = State.STOPPED
    full: float = 0.0
    turns: int = 0
    kept: float | None = None
    """Seconds that the last request which said so lets its tree stay."""
    closing: tuple[str, float] | None = None
    """Why it may be stopped with leases out, and from when they may be cut."""

    def oldest(self) -> Asked | None:
        """The one that has waited longest."""
        while self.queue and not self.queue[0].waits:
            self.queue.popleft()
        return self.queue[0] if self.queue else None


class Watch:
    """Sees every event and raises ViolationError."""

    def __init__(self, clock: FakeClock, policy: Policy, budgets: Mapping[DeviceId, int]) -> None:
        self.clock = clock
        self.policy = policy
        self.budgets = budgets
        self.books: dict[ModelId, Books] = {}
        self.faults = 0
        self.launches = self.ends = 0
        self.gave_up: set[ModelId] = set()
        """Their readiness check failed: they may be stopped while they start."""
        self.launching: dict[ModelId, LaunchSpec] = {}
        self.alive: dict[ModelId, LaunchSpec] = {}
        self.granted: dict[ModelId, Mapping[DeviceId, int]] = {}
        """What was set aside for each tree when it started, until the tree is empty."""
        self.fleet: Fleet | None = None
        self.priorities = 0
        """1 where some go before others."""
        self._last = clock.now()
        self._instances: dict[ModelId, Instance] = {}
        self._unit = policy.drain_grace + policy.stop_grace + KILL_MARGIN + START_LIMIT

    def watch(self, fleet: Fleet) -> None:
        """Begin."""
        self.fleet = fleet
        self._instances = fleet.supervisor.instances
        for model in self._instances:
            self.of(model)

    def of(self, model: ModelId) -> Books:
        """The books of *model*."""
        found = self.books.get(model)
        if found is None:
            found = self.books[model] = Books()
        return found

    # -- what happens

    def asks(self, model: ModelId) -> Asked:
        """A request comes."""
        books = self.of(model)
        ahead = sum(1 for name, other in self.books.items() if name != model and other.waiting)
        asked = Asked(model, self.clock.now(), ahead, self.faults, books.full, books.turns)
        books.queue.append(asked)
        books.waiting += 1
        return asked

    def ends_waiting(self, asked: Asked, how: str) -> None:
        """It waits no more."""
        asked.end(how)
        self.of(asked.model).waiting -= 1
        if how == "served":
            self._in_time(asked)
            self.of(asked.model).out += 1

    def gives_back(self, model: ModelId) -> None:
        """Its lease ends."""
        self.of(model).out -= 1

    def may_cut(self, model: ModelId, why: str, after: float) -> None:
        """*model* may be stopped with leases out, *after* so many seconds."""
        books, until = self.of(model), self.clock.now() + after
        if books.closing is None or books.state is not State.DRAINING or until < books.closing[1]:
            books.closing = (why, until)

    def launch(self, spec: LaunchSpec) -> None:
        """I1, I2 and I9, at the moment of a start."""
        model = spec.model
        self.launches += 1
        if model in self.launching or model in self.alive:
            raise ViolationError(f"I1: {model} is started while it has a tree")
        self.launching[model] = spec
        self.granted[model] = dict(self._instances[model].reserved)
        for device in spec.footprint.bytes_by_device:
            sums = {
                "reserved": sum(i.reserved.get(device, 0) for i in self._instances.values()),
                "granted to trees that live": sum(held.get(device, 0) for held in self.granted.values()),
            }
            for what, bytes_ in sums.items():
                if bytes_ > self.budgets.get(device, 0):
                    raise ViolationError(
                        f"I2: with {model}, {bytes_} bytes are {what} on {device}, "
                        f"whose budget is {self.budgets.get(device, 0)}"
                    )
        if not self._instances[model].reserved and spec.footprint.total:
            raise ViolationError(f"I2: {model} is started without a reservation")
        aside = {device for device, bytes_ in self.granted[model].items() if bytes_}
        if aside != _devices(spec):
            raise ViolationError(f"I2: {model} goes on {_devices(spec)}, and {aside} are set aside for it")
        self._alone(spec)
        self._allowed(model)

    def _allowed(self, model: ModelId) -> None:
        mine = self._instances[model].model
        for name in (self.launching.keys() | self.alive.keys()) - {model}:
            instance = self._instances.get(name)
            if instance is None or instance.state is State.STOPPED:
                continue
            other = instance.model
            if mine.exclusive or other.exclusive or (mine.group and mine.group == other.group):
                raise ViolationError(f"I2: {model} is started beside {name}, against the rules")

    def _alone(self, spec: LaunchSpec) -> None:
        mine = _devices(spec)
        beside = [
            other
            for name, instance in self._instances.items()
            if name != spec.model
            and instance.state is State.STARTING
            and (other := self.launching.get(name) or self.alive.get(name)) is not None
            and mine & _devices(other)
        ]
        if len(beside) >= self.policy.max_parallel_starts:
            raise ViolationError(f"I9: {spec.model} starts beside {[s.model for s in beside]}")
        if beside and (spec.measures_free_memory or any(s.measures_free_memory for s in beside)):
            raise ViolationError(f"I9: {spec.model} starts beside {beside[0].model}, and one measures")

    def spawned(self, spec: LaunchSpec) -> None:
        """It has a tree."""
        self.launching.pop(spec.model, None)
        if spec.model in self.alive:
            raise ViolationError(f"I1: two live trees of {spec.model}")
        self.alive[spec.model] = spec

    def ended(self, model: ModelId, late: float = 0.0) -> None:
        """It has no tree any more, or never had one; its GPUs' memory is back *late* seconds from now."""
        self.ends += 1
        self.of(model).kept = None
        self.launching.pop(model, None)
        self.alive.pop(model, None)
        granted = self.granted.pop(model, {})
        if late:
            name = ModelId(f"{model}, which is gone")
            self.granted[name] = {d: b for d, b in granted.items() if d != HOST}
            self.clock.call_later(late, partial(self._is_back, name))

    def _is_back(self, name: ModelId) -> None:
        self.granted.pop(name, None)

    def on_event(self, event: SupervisorEvent) -> None:
        """What the supervisor reports."""
        match event.kind:
            case EventKind.BUG:
                raise ViolationError(f"an illegal event: {event.data}")
            case EventKind.STATE_CHANGED:
                self._moved(event.model, State(event.data["previous"]), State(event.data["state"]))
            case EventKind.EVICTED:
                self._evicted(event)
            case EventKind.REAPED:
                self._reaped(event.model)
            case EventKind.FAILED:
                self.faults += 1
            case _:
                pass

    def _evicted(self, event: SupervisorEvent) -> None:
        victim = self._instances[event.model]
        books = self.of(event.model)
        beneficiary = self.books.get(event.data["beneficiary"])
        oldest = beneficiary.oldest() if beneficiary is not None else None
        now = self.clock.now()
        late = oldest is not None and now - oldest.since >= self.policy.max_wait - 0.001
        if victim.state is not State.READY:
            raise ViolationError(f"I3: {victim} is evicted")
        if victim.pinned:
            raise ViolationError(f"I3: {victim} is evicted and pinned")
        if (books.out or books.waiting) and not late:
            raise ViolationError(f"I3: {victim} is evicted busy, for one that waits no longer than max_wait")
        residency = min(self.policy.min_residency, self.policy.drain_grace)
        fresh = now - victim.ready_at < residency - 0.001
        spare = not event.data["reason"].startswith("more is used")
        if fresh and spare and (books.out or now - victim.idle_since < self.policy.settle - 0.001):
            raise ViolationError(f"I6: {victim} is evicted {now - victim.ready_at:.1f} s after it was loaded")
        if books.waiting:
            books.turns += 1
        if late:
            self.may_cut(event.model, "evicted", event.data.get("grace", self.policy.drain_grace))

    def _reaped(self, model: ModelId) -> None:
        instance, books = self._instances[model], self.of(model)
        if books.out or books.waiting or instance.state is not State.READY:
            raise ViolationError(f"I10: {instance} is reaped in use")
        stays = books.kept if books.kept is not None else instance.model.ttl or math.inf
        if self.clock.now() - max(instance.ready_at, instance.idle_since) < stays - 0.001:
            raise ViolationError(f"I10: {instance} is reaped before its time")

    def _moved(self, model: ModelId, previous: State, state: State) -> None:
        books = self.of(model)
        if books.state is not previous:
            raise ViolationError(f"{model} was {books.state}, not {previous}")
        books.state = state
        if state is State.STOPPING and books.out and model not in self.gave_up:
            why = books.closing
            if why is None or self.clock.now() < why[1] - 0.001:
                raise ViolationError(f"I3: {model} is stopped with {books.out} leases out: {why}")
        if state in (State.STARTING, State.STOPPED):
            books.closing = None
        if state is State.STARTING:
            self.gave_up.discard(model)

    # -- after every event

    def check(self) -> None:
        """All that can be seen from outside at a moment."""
        assert self.fleet is not None
        now = self.clock.now()
        passed, self._last = now - self._last, now
        pool = self.fleet.supervisor.pool
        waiting = 0
        for model, instance in self._instances.items():
            books = self.books.get(model) or self.of(model)
            state = instance.state
            waiting += books.waiting
            if instance.leases != books.out:
                raise ViolationError(f"I8: {instance} counts {instance.leases} leases; {books.out} are out")
            if instance.reserved and state not in WITH_TREE:
                raise ViolationError(f"I8: {instance} holds memory without a tree")
            if books.waiting:
                if pool.queue_length(model) != books.waiting:
                    raise ViolationError(
                        f"I4: {pool.queue_length(model)} wait for {model}; {books.waiting} were not answered"
                    )
                self._waits(instance, books, passed, now)
        if pool.waiting != waiting:
            raise ViolationError(f"I4: {pool.waiting} wait in all, and {waiting} were not answered")

    def _waits(self, instance: Instance, books: Books, passed: float, now: float) -> None:
        oldest = books.oldest()
        assert oldest is not None
        if instance.state is State.READY:
            limit = instance.model.concurrency
            if limit is None or books.out < limit:
                raise ViolationError(f"I4: {instance} has a free slot, and {books.waiting} wait for it")
            books.full += passed
        self._in_time(oldest)

    def _in_time(self, asked: Asked) -> None:
        """I5, and I4's deadline."""
        waited = self.clock.now() - asked.since
        if waited > self.policy.request_timeout + SLACK:
            raise ViolationError(f"I4: a request for {asked.model} waits {waited:.1f} s, past its deadline")
        books = self.of(asked.model)
        bound = self.bound(asked.ahead, self.faults - asked.faults, books.turns - asked.turns)
        if waited - (books.full - asked.full) > bound + SLACK:
            raise ViolationError(
                f"I5: a request for {asked.model} waits {waited:.1f} s; its bound is {bound:.1f} s, "
                f"with {asked.ahead} models ahead of it"
            )

    def bound(self, ahead: int, faults: int, turns: int) -> float:
        """Seconds a request may wait with *ahead* models before its own and *faults* misfortunes meanwhile.

        One whose model has too few slots for all who wait may need several *turns* of it, and stands behind
        all other models in between.
        """
        # Whoever of a higher priority was started just before is no victim until it is up.
        between = turns * len(self.books) + self.priorities
        calm = self.policy.max_wait * (1 + turns) + (1 + ahead + between) * self._unit
        return calm + faults * (self._unit + self.policy.backoff_max * 1.2)


def _devices(spec: LaunchSpec) -> set[DeviceId]:
    return {device for device, bytes_ in spec.footprint.bytes_by_device.items() if bytes_}
