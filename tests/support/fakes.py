"""The supervisor's ports, behaving, on a fake clock. Nothing here waits in real time.

`FakeWorld` wires them and keeps a transcript of what the supervisor reported. A launch does what the model's
`Script` says; listeners are only ever called from the clock, never inside the call that asked, as the real
ports promise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from config.vocabulary import EngineName
from registry.engine import (
    HOST,
    BusyPage,
    DeviceId,
    Diagnosis,
    Footprint,
    LaunchSpec,
    ModelId,
    StopPolicy,
    Wire,
)
from registry.model import Model, SourceKind
from supervisor.changeover import Changeover
from supervisor.errors import SupervisorError
from supervisor.fleet import Supervisor
from supervisor.policy import Policy
from supervisor.pool import InstanceLease, Waiter
from supervisor.ports import (
    Child,
    ChildListener,
    ChildRecord,
    Device,
    DeviceUsage,
    ExitReport,
    Learned,
    Leftover,
    ReadinessListener,
    SupervisorEvent,
)
from supervisor.reload import compare
from supervisor.world import World
from tests.support.fake_clock import FakeClock as FakeClock

GIB = 2**30


@dataclass(slots=True)
class Script:
    """What the next launches of a model do."""

    spawn_after: float = 0.01
    ready_after: float | None = 4.0
    """Seconds from spawn to ready; None: never."""
    not_ready_after: float | None = None
    """The readiness check gives up."""
    not_ready_code: str = ""
    exit_after: float | None = None
    """It exits by itself."""
    exit_code: int = 1
    tail: tuple[str, ...] = ("RuntimeError: scripted",)
    spawn_fails: str = ""
    ignores_term: bool = False
    stop_takes: float = 0.1
    memory_late: float = 0.0
    """Seconds after its end that its GPUs' memory comes back."""
    uses: int | None = None
    """Bytes it really holds; None: what was reserved for it."""
    uses_of: DeviceId = HOST
    """Where it holds them."""


class FakeChild:
    """A scripted tree."""

    def __init__(
        self, world: FakeWorld, record: ChildRecord, script: Script, listener: ChildListener
    ) -> None:
        self._world = world
        self._record = record
        self.script = script
        self.listener = listener
        self.alive = True
        self.spawned_at = world.clock.now()
        self.terms = 0

    @property
    def record(self) -> ChildRecord:
        """Its identity."""
        return self._record

    @property
    def tail(self) -> tuple[str, ...]:
        """Its last words."""
        return self.script.tail

    def stop(self, policy: StopPolicy) -> None:
        """TERM, and KILL after the grace, as a shim does."""
        self.terms += 1
        seconds = policy.grace_seconds if self.script.ignores_term else self.script.stop_takes
        self._world.clock.call_later(seconds, lambda: self.end(ExitReport(None, 15)))

    def kill(self) -> None:
        """KILL."""
        self._world.clock.call_later(0.01, lambda: self.end(ExitReport(None, 9)))

    def crash(self, code: int = 1) -> None:
        """It dies by itself, now."""
        self._world.clock.call_later(0, lambda: self.end(ExitReport(code, None, self.script.tail)))

    def end(self, report: ExitReport) -> None:
        """The tree is empty."""
        if self.alive:
            self.alive = False
            self._world.live.remove(self)
            if self.script.memory_late:
                until = self._world.clock.now() + self.script.memory_late
                self._world.late[self._record.pid] = until
            self._world.log(f"exit {self._record.model}/{self._record.incarnation}")
            self.listener.exited(report)


def _diagnosis(tail: tuple[str, ...]) -> Diagnosis:
    said = tail[-1] if tail else "died silently"
    return Diagnosis(said, code="out_of_memory" if "out of memory" in said else "engine_failed")


def _raise(error: Exception) -> None:
    """A fault of ours ends the test."""
    raise error


class FakeCheck:
    """A readiness check that can be called off."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        """Nothing is reported afterwards."""
        self.cancelled = True


class FakeWorld:
    """All ports of the supervisor, and the transcript."""

    def __init__(self, *, budget: int = 100 * GIB, devices: Mapping[DeviceId, int] | None = None) -> None:
        self.clock = FakeClock()
        self.scripts: dict[ModelId, list[Script]] = {}
        """Scripts of the next launches; the last one stays."""
        self.live: list[FakeChild] = []
        self.transcript: list[str] = []
        self.events: list[SupervisorEvent] = []
        self.left_behind: list[tuple[ChildRecord, Script]] = []
        self.late: dict[int, float] = {}
        """Pids of trees that are gone, and until when they hold on to their GPUs' memory."""
        self.footprints: dict[int, Mapping[DeviceId, int]] = {}
        self.at_work: dict[ModelId, int | None] = {}
        """What engines that can be asked say they work at."""
        self.asked: list[ModelId] = []
        self.trouble = ""
        """Why nothing can be written."""
        self.free: dict[DeviceId, int] = {}
        """Bytes measured as free, where somebody measures."""
        self.ports_out: set[int] = set()
        self.spawns = 0
        self._next_port = 40000
        self._pids = itertools.count(100)
        self._incarnations: dict[ModelId, int] = {}
        self._learned: dict[str, Learned] = {}
        self.journal_children: dict[int, ChildRecord] = {}
        pools = devices if devices is not None else {HOST: budget}
        self._devices = tuple(Device(d, total_bytes=2 * b, budget_bytes=b) for d, b in pools.items())
        self.world = World(
            clock=self.clock,
            launcher=self,
            readiness=self,
            busyness=self,
            memory=self,
            ports=self,
            journal=self,
            emit=self.events.append,
            diagnose=lambda model, report: _diagnosis(report.tail),
            new_key=lambda: "key",
            jitter=lambda: 0.0,
            storage=lambda: self.trouble,
            fault=_raise,
        )

    def log(self, line: str) -> None:
        """Add to the transcript."""
        self.transcript.append(line)

    # -- Launcher

    def _script(self, model: ModelId) -> Script:
        scripts = self.scripts.get(model)
        if not scripts:
            return Script()
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]

    def launch(
        self, spec: LaunchSpec, *, port: int, key: str, incarnation: int, listener: ChildListener
    ) -> None:
        """Start what the script says."""
        script = self._script(spec.model)
        self.log(f"launch {spec.model}/{incarnation}")
        self.spawns += 1
        record = self._record(spec, port, key, incarnation)
        self.footprints[record.pid] = spec.footprint.bytes_by_device
        if script.spawn_fails:
            self.clock.call_later(script.spawn_after, lambda: listener.spawn_failed(script.spawn_fails))
        else:
            self.clock.call_later(script.spawn_after, lambda: self._spawn(record, script, listener))

    def _spawn(self, record: ChildRecord, script: Script, listener: ChildListener) -> None:
        same = [child for child in self.live if child.record.model == record.model]
        assert not same, f"two live trees of {record.model} (I1)"
        child = FakeChild(self, record, script, listener)
        self.live.append(child)
        if script.exit_after is not None:
            report = ExitReport(script.exit_code, None, script.tail)
            self.clock.call_later(script.exit_after, lambda: child.end(report))
        listener.spawned(child)

    def _record(self, spec: LaunchSpec, port: int, key: str, incarnation: int) -> ChildRecord:
        return ChildRecord(
            model=spec.model,
            engine=spec.engine,
            fingerprint=spec.fingerprint,
            incarnation=incarnation,
            port=port,
            key=key,
            shim_pid=next(self._pids),
            shim_started=0.0,
            pid=next(self._pids),
            boot_id="boot",
            socket="",
            log=f"/log/{spec.model}",
            spawned_at=self.clock.wall(),
        )

    def leave_behind(self, spec: LaunchSpec, script: Script) -> None:
        """A tree of *spec* that an earlier daemon has left."""
        self.left_behind.append((self._record(spec, 39999, "key", 1), script))

    async def survivors(self) -> tuple[ChildRecord, ...]:
        """What an earlier daemon left."""
        return tuple(record for record, _ in self.left_behind)

    def attach(self, record: ChildRecord, listener: ChildListener) -> None:
        """Take one over."""
        for known, script in self.left_behind:
            if known is record:
                self.clock.call_later(0.01, partial(self._spawn, record, script, listener))
                return
        self.clock.call_later(0.01, lambda: listener.spawn_failed("gone"))

    # -- Readiness

    def check(self, child: Child, spec: LaunchSpec, listener: ReadinessListener) -> FakeCheck:
        """Ready when the script says, counted from the spawn."""
        assert isinstance(child, FakeChild)
        check, script = FakeCheck(), child.script
        done = self.clock.now() - child.spawned_at

        def ready() -> None:
            if not check.cancelled and child.alive:
                self.log(f"ready {child.record.model}/{child.record.incarnation}")
                listener.ready()

        def not_ready() -> None:
            if not check.cancelled and child.alive:
                listener.not_ready("scripted stall", code=script.not_ready_code)

        if script.not_ready_after is not None:
            self.clock.call_later(max(script.not_ready_after - done, 0.001), not_ready)
        elif script.ready_after is not None:
            self.clock.call_later(max(script.ready_after - done, 0.001), ready)
        return check

    # -- Busyness

    def ask(self, record: ChildRecord, page: BusyPage, answered: Callable[[int | None], None]) -> None:
        """As `at_work` says, a moment later."""
        self.asked.append(record.model)
        self.clock.call_later(0.01, lambda: answered(self.at_work.get(record.model, 0)))

    # -- MemoryProbe

    def devices(self) -> tuple[Device, ...]:
        """The pools."""
        return self._devices

    def usage(self) -> Mapping[DeviceId, DeviceUsage]:
        """Only what `free` says."""
        return {device: DeviceUsage(0, bytes_) for device, bytes_ in self.free.items()}

    def of_tree(self, record: ChildRecord) -> Mapping[DeviceId, int]:
        """What the script says it uses."""
        for child in self.live:
            if child.record.pid == record.pid and child.script.uses is not None:
                return {child.script.uses_of: child.script.uses}
        return {}

    def leftovers(self, record: ChildRecord) -> tuple[Leftover, ...] | None:
        """All that its spec says of GPUs, until it is late no more."""
        if self.late.get(record.pid, 0.0) <= self.clock.now():
            return ()
        held = self.footprints.get(record.pid, {})
        return tuple(Leftover(d, record.pid, b) for d, b in held.items() if d != HOST)

    def watch(self, record: ChildRecord) -> None:
        """Nothing to do."""

    def unwatch(self, record: ChildRecord) -> None:
        """Nothing to do."""

    # -- PortSource

    def take(self) -> int:
        """A port."""
        self._next_port += 1
        self.ports_out.add(self._next_port)
        return self._next_port

    def give_back(self, port: int) -> None:
        """It must have been out."""
        self.ports_out.discard(port)

    # -- Journal

    def next_incarnation(self, model: ModelId) -> int:
        """One more."""
        self._incarnations[model] = self._incarnations.get(model, 0) + 1
        return self._incarnations[model]

    def child_started(self, record: ChildRecord) -> None:
        """Remember."""
        self.journal_children[record.pid] = record

    def child_ended(self, record: ChildRecord) -> None:
        """Forget."""
        self.journal_children.pop(record.pid, None)

    def children(self) -> tuple[ChildRecord, ...]:
        """Those remembered."""
        return tuple(self.journal_children.values())

    def learned(self, fingerprint: str) -> Learned:
        """What was learned."""
        return self._learned.get(fingerprint, Learned())

    def learn(
        self,
        fingerprint: str,
        *,
        load_seconds: float | None = None,
        peak_bytes: Mapping[DeviceId, int] | None = None,
        stages: Mapping[str, float] | None = None,
    ) -> None:
        """The newest load time and stages, the largest peak."""
        old = self.learned(fingerprint)
        peaks = dict(old.peak_bytes)
        for device, bytes_ in (peak_bytes or {}).items():
            peaks[device] = max(peaks.get(device, 0), bytes_)
        self._learned[fingerprint] = Learned(
            load_seconds or old.load_seconds, peaks, old.stages if stages is None else dict(stages)
        )


def make_model(
    name: str,
    *,
    size: int = 10 * GIB,
    ttl: float = 0.0,
    pin: bool = False,
    preload: bool = False,
    concurrency: int | None = None,
    alone: bool = False,
    device: DeviceId = HOST,
    need: Mapping[DeviceId, int] | None = None,
    given: bool = False,
    argv: tuple[str, ...] = ("engine", "{port}"),
) -> Model:
    """A model of *size* bytes on *device*, or of *need*."""
    model_id = ModelId(name)
    spec = LaunchSpec(
        model=model_id,
        engine=EngineName.COMMAND,
        argv=argv,
        footprint=Footprint(need or {device: size}, "models.memory" if given else "estimate"),
        measures_free_memory=alone,
    )
    return Model(
        id=model_id,
        engine=EngineName.COMMAND,
        source=name,
        source_kind=SourceKind.CONFIG,
        ttl=ttl,
        pin=pin,
        preload=preload,
        concurrency=concurrency,
        spec=spec,
        wire=Wire(name),
    )


@dataclass(slots=True)
class Request:
    """One request through the supervisor, without asyncio."""

    model: ModelId
    lease: InstanceLease | None = None
    error: SupervisorError | None = None
    waiter: Waiter | None = None

    def done(self, outcome: str = "served") -> None:
        """Give the lease back."""
        assert self.lease is not None, f"{self.model}: no lease, error {self.error!r}"
        self.lease.release(outcome)

    @property
    def open(self) -> bool:
        """Neither leased nor refused yet."""
        return self.lease is None and self.error is None


@dataclass(slots=True)
class Fleet:
    """A supervisor over a fake world, with requests that can be asked about."""

    models: tuple[Model, ...]
    policy: Policy = field(default_factory=Policy)
    fake: FakeWorld = field(default_factory=FakeWorld)
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.models, self.fake.world, self.policy)

    def request(
        self, model: str, *, timeout: float | None = None, named: str = "", priority: int = 0
    ) -> Request:
        """Ask for a lease as the router does: the warm path first, then the queue."""
        request = Request(ModelId(model))
        request.lease = self.supervisor.lease_now(request.model)
        if request.lease is not None:
            self._assert_alive(request.lease)
            return request

        def granted(lease: InstanceLease) -> None:
            assert request.open, "answered twice (I4)"
            self._assert_alive(lease)
            request.lease = lease

        def refused(error: SupervisorError) -> None:
            assert request.open, "answered twice (I4)"
            request.error = error

        try:
            request.waiter = self.supervisor.ask(
                request.model,
                timeout=timeout,
                request=named,
                priority=priority,
                granted=granted,
                refused=refused,
            )
        except SupervisorError as error:
            request.error = error
        return request

    def _assert_alive(self, lease: InstanceLease) -> None:
        alive = {child.record.pid for child in self.fake.live}
        assert lease.generation in alive, "a lease on a tree that is gone"

    def advance(self, seconds: float = 0.0) -> None:
        """Move time on."""
        self.fake.clock.advance(seconds)

    def reload(self, *models: Model, retry: bool = True) -> dict[ModelId, Changeover]:
        """Take over a catalog of *models*; the changeovers that go on from here."""
        changeovers = self.supervisor.changeovers
        before = {instance.id: instance.model for instance in self.supervisor.instances.values()}
        plan = changeovers.plan(compare(before, {model.id: model for model in models}), retry=retry)
        return changeovers.carry_out(plan)

    def state(self, model: str) -> str:
        """Its state's name."""
        return self.supervisor.instances[ModelId(model)].state.value

    def child(self, model: str) -> FakeChild:
        """Its live tree."""
        return next(child for child in self.fake.live if child.record.model == model)
