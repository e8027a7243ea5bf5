"""Runs a trace: the real admission, pool, lifecycle and fleet on a fake clock, watched after every event."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from registry.engine import DeviceId, Footprint, LaunchSpec, ModelId, StopPolicy
from registry.model import Model
from supervisor.errors import ModelTooLargeError, SupervisorError
from supervisor.lifecycle import State
from supervisor.pool import InstanceLease
from supervisor.ports import Child, ChildListener, ChildRecord, ExitReport, ReadinessListener
from tests.sim.invariants import Asked, ViolationError, Watch
from tests.sim.trace import (
    START_LIMIT,
    Arrive,
    Crash,
    Happening,
    ModelPlan,
    Pin,
    Reload,
    Talk,
    Trace,
    Unload,
)
from tests.support.fakes import FakeCheck, FakeChild, FakeWorld, Fleet, Script, make_model


def model_of(plan: ModelPlan) -> Model:
    """The model that *plan* describes."""
    model = make_model(
        plan.name,
        ttl=plan.ttl,
        pin=plan.pin,
        preload=plan.preload,
        concurrency=plan.concurrency,
        alone=plan.alone,
        argv=("engine", "{port}", str(plan.version)),
        need=plan.need,
    )
    assert model.spec is not None
    spec = replace(model.spec, stop=StopPolicy(grace_seconds=3.0))
    elsewhere = tuple(
        replace(spec, footprint=Footprint(need), env={"PLACE": str(place)})
        for place, need in enumerate(plan.elsewhere, 1)
    )
    return replace(
        model,
        spec=spec,
        elsewhere=elsewhere,
        priority=plan.priority,
        group=plan.group,
        exclusive=plan.exclusive,
    )


class _Listener:
    """Tells the watch what a child's listener is told."""

    def __init__(self, world: SimWorld, spec: LaunchSpec, inner: ChildListener) -> None:
        self._world = world
        self._spec = spec
        self._inner = inner
        self._child: FakeChild | None = None

    def spawned(self, child: Child) -> None:
        self._world.observer.spawned(self._spec)
        assert isinstance(child, FakeChild)
        self._child = child
        self._inner.spawned(child)

    def spawn_failed(self, reason: str) -> None:
        self._world.observer.ended(self._spec.model)
        self._inner.spawn_failed(reason)

    def exited(self, report: ExitReport) -> None:
        late = self._child.script.memory_late if self._child is not None else 0.0
        self._world.observer.ended(self._spec.model, late)
        self._world.on_exit(self._spec.model)
        self._inner.exited(report)


class SimWorld(FakeWorld):
    """A fake world whose launches are as lucky as the trace's seed says."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(devices=trace.budgets)
        self.trace = trace
        self.plans = {ModelId(plan.name): plan for plan in trace.models}
        self.observer = Watch(self.clock, trace.policy, trace.budgets)
        self.world = replace(self.world, emit=self.observer.on_event)
        self.on_exit: Callable[[ModelId], None] = lambda model: None
        self.fleet: Fleet | None = None
        self._launched: dict[ModelId, int] = {}
        self._factors: dict[int, float] = {}

    def log(self, line: str) -> None:
        """No transcript: these worlds are long."""

    def _script(self, model: ModelId) -> Script:
        """By seed, model and number of the launch: what else happens does not change it."""
        number = self._launched[model] = self._launched.get(model, 0) + 1
        dice = random.Random(f"{self.trace.seed} {model} {number}")
        faults, luck = self.trace.faults, dice.random()
        ready = self.plans[model].load_seconds * dice.uniform(0.8, 1.2)
        late = dice.choice([0.0, 0.0, 0.4, 3.0])
        born = dice.choice([0.01, 0.2, 1.5])
        if luck < 0.06 * faults:
            return Script(born, ready_after=None, exit_after=dice.uniform(0.01, START_LIMIT))
        if luck < 0.09 * faults:  # it hangs until the readiness check gives up
            return Script(born, ready_after=None, not_ready_after=START_LIMIT - 1.6)
        if luck < 0.12 * faults:
            return Script(born, spawn_fails="fork: out of memory")
        if luck < 0.2 * faults:
            return Script(born, ready_after=ready, exit_after=ready + dice.uniform(0, 20), memory_late=late)
        return Script(
            born,
            ready_after=ready,
            ignores_term=dice.random() < 0.1 * faults,
            stop_takes=dice.choice([0.01, 0.5, 2.0]),
            memory_late=late,
        )

    def launch(
        self, spec: LaunchSpec, *, port: int, key: str, incarnation: int, listener: ChildListener
    ) -> None:
        """Checked before it is done."""
        self.observer.launch(spec)
        super().launch(
            spec, port=port, key=key, incarnation=incarnation, listener=_Listener(self, spec, listener)
        )

    def attach(self, record: ChildRecord, listener: ChildListener) -> None:
        """One of an earlier daemon."""
        assert self.fleet is not None
        instance = self.fleet.supervisor.instances[record.model]
        assert instance.model.spec is not None
        self.observer.launches += 1
        super().attach(record, _Listener(self, instance.model.spec, listener))

    def check(self, child: Child, spec: LaunchSpec, listener: ReadinessListener) -> FakeCheck:
        """The watch hears of a check that gives up."""
        return super().check(child, spec, _Readiness(self, spec.model, listener))

    def of_tree(self, record: ChildRecord) -> dict[DeviceId, int]:
        """What it really holds: estimates are wrong in both directions."""
        factor = self._factors.get(record.pid)
        if factor is None:
            dice = random.Random(f"{self.trace.seed} {record.model} {record.pid}")
            factor = self._factors[record.pid] = dice.choice(
                [1.0, dice.uniform(0.5, 1.05), dice.uniform(1, 1.6)]
            )
        plan = self.plans[record.model]
        held = self.footprints.get(record.pid, plan.need) if plan.elsewhere else plan.need
        return {d: int(b * factor) for d, b in held.items()}


class _Readiness:
    def __init__(self, world: SimWorld, model: ModelId, inner: ReadinessListener) -> None:
        self._world, self._model, self._inner = world, model, inner

    def ready(self) -> None:
        self._inner.ready()

    def not_ready(self, reason: str, *, code: str = "") -> None:
        self._world.observer.gave_up.add(self._model)
        self._inner.not_ready(reason, code=code)

    def progress(self, note: str) -> None:
        self._inner.progress(note)


@dataclass(slots=True, eq=False)
class Client:
    """A request's client: leaves when it has had enough, and goes on when it was answered."""

    asked: Asked
    lease: InstanceLease | None = None
    over: Callable[[], None] = lambda: None
    """Called once, when the request has ended."""


class Simulation:
    """One run of one trace. `events` counts what happened: fired timers and happenings."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.fake = SimWorld(trace)
        self.watch = self.fake.observer
        self.models = {plan.name: plan for plan in trace.models}
        self.events = 0
        self.errors: list[SupervisorError] = []
        self.leased: dict[ModelId, set[Client]] = {}
        self._survivors()
        self.fleet = Fleet(tuple(model_of(plan) for plan in trace.models), trace.policy, self.fake)
        self.fake.fleet = self.fleet
        self.fake.on_exit = self._cut
        self.watch.watch(self.fleet)
        self.fake.clock.after_each = self._after
        arrivals = [happening for happening in trace.happenings if isinstance(happening, Arrive)]
        if any(model.priority for model in trace.models) or any(arrival.priority for arrival in arrivals):
            self.watch.priorities = 1

    def _survivors(self) -> None:
        room = dict(self.trace.budgets)
        for plan in self.trace.models:
            if not plan.survives or any(room[d] < b for d, b in plan.need.items()):
                continue
            for device, bytes_ in plan.need.items():
                room[device] -= bytes_
            spec = model_of(plan).spec
            assert spec is not None
            self.fake.leave_behind(spec, Script(ready_after=plan.load_seconds))

    def run(self) -> int:
        """Play it to its end and wind up; how many events that were. Raises ViolationError."""
        begin = self.fleet.supervisor.begin()
        try:
            begin.send(None)
        except StopIteration:
            pass
        start = self.fake.clock.now()
        for happening in self.trace.happenings:
            self.fleet.advance(max(start + happening.at - self.fake.clock.now(), 0))
            self._happens(happening)
            self._after()
        self.fleet.advance(max(start + self.trace.horizon - self.fake.clock.now(), 0))
        self._wind_up()
        return self.events

    def _after(self) -> None:
        self.events += 1
        self.watch.check()

    # -- happenings

    def _happens(self, happening: Happening) -> None:
        names = list(self.models)
        match happening:
            case Arrive(_, model, service, patience, priority, fails):
                name = names[model % len(names)]
                self._arrives(name, service, patience=patience, priority=priority, fails=fails)
            case Talk(_, models, service, think):
                self._says([names[model % len(names)] for model in models], service, think)
            case Crash(_, nth):
                if self.fake.live:
                    self.watch.faults += 1
                    self.fake.live[nth % len(self.fake.live)].crash()
            case Unload(_, model, grace):
                self._unloads(names[model % len(names)], grace)
            case Pin(_, model, pinned):
                self.watch.faults += 1
                instance = self.fleet.supervisor.instances.get(ModelId(names[model % len(names)]))
                if instance is not None:
                    self.fleet.supervisor.pin(instance.id, pinned=pinned)
            case Reload(_, model, scale):
                self._reloads(names[model % len(names)], scale)

    def _says(self, models: list[str], service: float, think: float) -> None:
        """An agent's next turn."""
        if not models:
            return
        name, rest = models[0], models[1:]

        def next_turn() -> None:
            self.fake.clock.call_later(think, partial(self._says, rest, service, think))

        if self.fake.clock.now() < 1000.0 + self.trace.horizon:
            self._arrives(name, service, over=next_turn)

    def _unloads(self, name: str, grace: float) -> None:
        self.watch.faults += 1
        instance = self.fleet.supervisor.instances.get(ModelId(name))
        if instance is not None:
            self.watch.may_cut(instance.id, "unloaded", grace)
            instance.stop(drain_grace=grace)

    def _reloads(self, name: str, scale: float) -> None:
        plan = self.models[name]
        self.models[name] = replace(plan.scaled(scale or 1.0), version=plan.version + 1)
        self.fake.plans[ModelId(name)] = self.models[name]
        self.watch.faults += 1
        self.watch.may_cut(ModelId(name), "reloaded", self.trace.policy.drain_grace)
        kept = [plan for key, plan in self.models.items() if scale or key != name]
        self.fleet.reload(*(model_of(plan) for plan in kept))

    # -- requests

    def _arrives(
        self,
        name: str,
        service: float,
        *,
        patience: float | None = None,
        priority: int = 0,
        fails: bool = False,
        over: Callable[[], None] = lambda: None,
    ) -> None:
        model = ModelId(name)
        client = Client(self.watch.asks(model), over=over)
        supervisor = self.fleet.supervisor

        def granted(lease: InstanceLease) -> None:
            self.watch.ends_waiting(client.asked, "served")
            self._leased(client, lease, service, "upstream_failed" if fails else "served")

        def refused(error: SupervisorError) -> None:
            self.watch.ends_waiting(client.asked, "refused")
            self._refused(error)
            client.over()

        lease = supervisor.lease_now(model)
        if lease is not None:
            others = self.watch.of(model).waiting - 1
            if others:
                raise ViolationError(f"I5: a lease on {model} past {others} that wait")
            granted(lease)
        else:
            try:
                waiter = supervisor.ask(model, priority=priority, granted=granted, refused=refused)
            except SupervisorError as error:
                refused(error)
                return
            self._could_fit(model)
            if patience is not None:
                self.fake.clock.call_later(patience, lambda: self._leaves(client, waiter.cancel))
                return
        if patience is not None:
            self.fake.clock.call_later(patience, lambda: self._leaves(client, lambda: None))

    def _could_fit(self, model: ModelId) -> None:
        """I7: whoever is made to wait could be served."""
        instance = self.fleet.supervisor.instances[model]
        # By the definition that is in force: one that can never fit is not taken over.
        if instance.state is State.STOPPED and not any(
            all(bytes_ <= self.trace.budgets[device] for device, bytes_ in need.items())
            for need in (spec.footprint.bytes_by_device for spec in instance.model.places)
        ):
            raise ViolationError(f"I7: a request for {model} waits, which can never fit anywhere")

    def _refused(self, error: SupervisorError) -> None:
        self.errors.append(error)
        if "beside" in str(error):
            return
        if isinstance(error, ModelTooLargeError) and " GiB" not in str(error) and " MiB" not in str(error):
            raise ViolationError(f"I7: no numbers in {error}")

    def _leased(self, client: Client, lease: InstanceLease, service: float, outcome: str) -> None:
        alive = {child.record.pid for child in self.fake.live}
        if lease.generation not in alive:
            raise ViolationError(f"I3: a lease on a tree of {client.asked.model} that is gone")
        client.lease = lease
        self.leased.setdefault(client.asked.model, set()).add(client)
        self._keeps(client.asked.model, lease)
        self.fake.clock.call_later(service, lambda: self._gives_back(client, outcome))

    def _keeps(self, model: ModelId, lease: InstanceLease) -> None:
        """Some requests say how long their model stays after them."""
        dice = random.Random(f"{self.trace.seed} keep {self.fake.clock.now()}")
        if dice.random() < 0.05:
            seconds = dice.choice([0.0, 5.0, math.inf])
            self.watch.of(model).kept = seconds
            lease.keep(seconds)

    def _leaves(self, client: Client, cancel: Callable[[], None]) -> None:
        if client.lease is not None:
            self._gives_back(client, "client_gone")
        elif client.asked.waits:
            self.watch.ends_waiting(client.asked, "gone")
            cancel()
            client.over()

    def _gives_back(self, client: Client, outcome: str) -> None:
        lease, client.lease = client.lease, None
        if lease is not None:
            self.leased[client.asked.model].discard(client)
            self.watch.gives_back(client.asked.model)
            lease.release(outcome)
            lease.release(outcome)  # the front may say so twice
            client.over()

    def _cut(self, model: ModelId) -> None:
        """Its tree ends: whoever was connected to it notices a moment later."""
        for client in list(self.leased.get(model, ())):
            self.fake.clock.call_later(0.01, partial(self._gives_back, client, "upstream_failed"))

    # -- the end

    def _wind_up(self) -> None:
        """No more arrivals: everybody is answered, everything is stopped, and nothing is left."""
        for _ in range(4000):
            if not any(books.waiting or books.out for books in self.watch.books.values()):
                break
            self.fleet.advance(1)
        left = {model: b.waiting for model, b in self.watch.books.items() if b.waiting or b.out}
        if left:
            raise ViolationError(f"I4: never answered: {left}")
        self.fleet.supervisor.scheduler.wanted.clear()  # nobody wants them any more
        for _ in range(2):
            for instance in list(self.fleet.supervisor.instances.values()):
                instance.stop(drain_grace=0)
            self.fleet.advance(60)
        self._nothing_left()

    def _nothing_left(self) -> None:
        states = {i.state for i in self.fleet.supervisor.instances.values()}
        if self.fake.live or self.fake.ports_out or self.fake.journal_children or states - {State.STOPPED}:
            raise ViolationError(
                f"I8: left behind: trees {self.fake.live}, ports {self.fake.ports_out}, "
                f"records {list(self.fake.journal_children)}, states {states}"
            )
        if self.watch.launches != self.watch.ends:
            raise ViolationError(f"I8: {self.watch.launches} launches, {self.watch.ends} ends")
