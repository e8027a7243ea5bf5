"""Everything the supervisor needs from the world, as small protocols.

The real ones are wired in `router.wiring`; fakes that behave live in `tests/support/`. Calls into these ports
are plain functions that return at once; what takes time answers later by calling a listener **on the event
loop's thread**. A listener call never happens inside the call that asked for it, so a caller is never
re-entered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from config.vocabulary import EngineName
from registry.engine import BusyPage, DeviceId, LaunchSpec, ModelId, StopPolicy

# -- time ------------------------------------------------------------------------------------------


class Timer(Protocol):
    """A callback that has not run yet."""

    def cancel(self) -> None:
        """Forget it; harmless when it has run."""
        ...


class Clock(Protocol):
    """Monotonic time and timers. There is no sleep: what must happen later is a timer that posts an event."""

    def now(self) -> float:
        """Seconds, monotonic, from an arbitrary origin."""
        ...

    def wall(self) -> float:
        """Unix seconds: for people and for the state file, never for a decision."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Run *callback* once, *seconds* from now."""
        ...


# -- processes -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChildRecord:
    """What identifies an instance's tree across daemons; kept by the shim and in the state file.

    A pid alone means nothing: (pid, start time, boot id) does.
    """

    model: ModelId
    engine: EngineName
    fingerprint: str
    incarnation: int
    port: int
    key: str
    """The engine's API key, or ""; the record is only ever kept in 0600 files and on 0700 sockets."""
    shim_pid: int
    shim_started: float
    """Clock ticks since boot, as /proc/PID/stat field 22 has it."""
    pid: int
    boot_id: str
    socket: str
    """Path of the shim's socket."""
    log: str
    """Path of the engine's current log file."""
    spawned_at: float
    """Unix seconds."""

    def to_json(self) -> dict[str, Any]:
        """A plain dict for json.dumps."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How a tree ended. It is empty when this is reported: no descendant is left."""

    code: int | None
    """Exit status, None when a signal ended it or nobody knows."""
    signal: int | None = None
    tail: tuple[str, ...] = ()
    """The engine's last words, oldest first."""
    lost: bool = False
    """The shim was gone: the tree was ended by the daemon and its status is unknown."""


class Child(Protocol):
    """A running (or starting) tree under its shim."""

    @property
    def record(self) -> ChildRecord:
        """Its identity."""
        ...

    @property
    def tail(self) -> tuple[str, ...]:
        """Last lines the daemon has seen of its output (bounded, kept by the launcher)."""
        ...

    def stop(self, policy: StopPolicy) -> None:
        """Ask the shim to end the tree: cmd_stop, TERM, grace, KILL. `exited` follows."""
        ...

    def kill(self) -> None:
        """End the tree now. `exited` follows."""
        ...


class ChildListener(Protocol):
    """Told what becomes of one launch; `spawned` or `spawn_failed` comes first, `exited` once, last."""

    def spawned(self, child: Child) -> None:
        """The tree exists."""
        ...

    def spawn_failed(self, reason: str) -> None:
        """There is no tree and there will be none."""
        ...

    def exited(self, report: ExitReport) -> None:
        """The tree is empty."""
        ...


class Launcher(Protocol):
    """Turns a `LaunchSpec` into a running tree."""

    def launch(
        self, spec: LaunchSpec, *, port: int, key: str, incarnation: int, listener: ChildListener
    ) -> None:
        """Start a tree under a shim. Answers on *listener*; never raises."""
        ...

    async def survivors(self) -> tuple[ChildRecord, ...]:
        """Shims of this state directory that are alive. Called once, at start."""
        ...

    def attach(self, record: ChildRecord, listener: ChildListener) -> None:
        """Take over a survivor. Answers `spawned`, or `spawn_failed` when it is gone."""
        ...


class PortSource(Protocol):
    """Free loopback ports; a guess, not a reservation, so starts may still collide."""

    def take(self) -> int:
        """A port nobody listens on now and that we have not given out."""
        ...

    def give_back(self, port: int) -> None:
        """Its instance is gone."""
        ...


# -- readiness -------------------------------------------------------------------------------------


class ReadinessListener(Protocol):
    """Told what becomes of one check."""

    def ready(self) -> None:
        """Every step passed: our child answers as this model."""
        ...

    def not_ready(self, reason: str, *, code: str = "") -> None:
        """It will not become ready: fatal answer, stall or deadline. *reason* says which and where.

        *code* is a `Diagnosis.code` where the check itself knows the cause (`port_taken`); else the engine's
        last words have to tell.
        """
        ...

    def progress(self, note: str) -> None:
        """What it is doing now, for people: `loading weights 42%`. Said again and again, new or not."""
        ...


class Held(Protocol):
    """A lease that is out."""

    revoked: bool
    """An operator takes the instance away; what is cut by that is not tried again."""


class Cancellable(Protocol):
    """Something under way that can be called off; nothing is reported afterwards."""

    def cancel(self) -> None:
        """Stop; harmless when it is over."""
        ...


class Readiness(Protocol):
    """Walks a `LaunchSpec`'s readiness steps against a child."""

    def check(self, child: Child, spec: LaunchSpec, listener: ReadinessListener) -> Cancellable:
        """Poll until ready, fatal, stalled (`spec.stall_timeout` without a sign of progress) or
        `spec.start_timeout` is over."""
        ...


# -- idleness --------------------------------------------------------------------------------------


class Busyness(Protocol):
    """Asks an engine whether it works."""

    def ask(self, record: ChildRecord, page: BusyPage, answered: Callable[[int | None], None]) -> None:
        """Call *answered* later, once: requests it works at; None when it does not say."""
        ...


# -- memory ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Device:
    """A memory pool and what instances may take of it."""

    id: DeviceId
    total_bytes: int
    budget_bytes: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """What was measured on a device."""

    used_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a process still holds although its tree is gone."""

    device: DeviceId
    pid: int
    bytes: int


class MemoryProbe(Protocol):
    """What memory there is and who holds it. Reads cached values; a thread of its own refreshes them."""

    def devices(self) -> tuple[Device, ...]:
        """The pools of this machine, fixed for the daemon's life."""
        ...

    def usage(self) -> Mapping[DeviceId, DeviceUsage]:
        """Last measured use per device; a device that cannot be measured is absent."""
        ...

    def of_tree(self, record: ChildRecord) -> Mapping[DeviceId, int]:
        """Last measured bytes of an instance's tree; empty when not measured yet."""
        ...

    def watch(self, record: ChildRecord) -> None:
        """Include this tree in the measurements; what was measured of it before is forgotten."""
        ...

    def unwatch(self, record: ChildRecord) -> None:
        """Its tree is gone."""
        ...

    def leftovers(self, record: ChildRecord) -> tuple[Leftover, ...] | None:
        """What processes of a tree that is gone still hold, by a measurement begun after `unwatch`.

        None while there is no such measurement; empty when all is back, and where nobody can measure it.
        """
        ...


# -- memory of the daemon --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Learned:
    """What earlier runs of the same (model, engine, flags) taught."""

    load_seconds: float | None = None
    peak_bytes: Mapping[DeviceId, int] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    """When each `progress.Stage` of a start began, in seconds since the start."""


class Journal(Protocol):
    """The state file. Reads answer from memory; writes are queued to one thread."""

    def next_incarnation(self, model: ModelId) -> int:
        """One more than any incarnation of *model* there ever was in this state directory."""
        ...

    def child_started(self, record: ChildRecord) -> None:
        """Remember a tree."""
        ...

    def child_ended(self, record: ChildRecord) -> None:
        """Forget it."""
        ...

    def children(self) -> tuple[ChildRecord, ...]:
        """Trees that were remembered and not forgotten."""
        ...

    def learned(self, fingerprint: str) -> Learned:
        """What is known of that spec."""
        ...

    def learn(
        self,
        fingerprint: str,
        *,
        load_seconds: float | None = None,
        peak_bytes: Mapping[DeviceId, int] | None = None,
        stages: Mapping[str, float] | None = None,
    ) -> None:
        """Load times are averaged (the newest weighs half), peaks only grow, the last stages stay."""
        ...


# -- news ------------------------------------------------------------------------------------------


class EventKind(StrEnum):
    """What can be reported; one log line and one counter each."""

    STATE_CHANGED = "instance_state_changed"
    SPAWNED = "instance_spawned"
    ADOPTED = "instance_adopted"
    READY = "instance_ready"
    FAILED = "instance_failed"
    EXITED = "instance_exited"
    EVICTED = "instance_evicted"
    REAPED = "instance_reaped"
    MEMORY_HELD = "memory_held"
    """A tree is gone and its memory is not."""
    REDEFINED = "model_redefined"
    """A reload restarts it with another definition."""
    ROLLED_BACK = "model_rolled_back"
    """It keeps, or has again, the definition before that of the configuration."""
    ASKED = "operator_asked"
    WAITING = "request_waiting"
    REFUSED = "request_refused"
    BUG = "illegal_event"


@dataclass(frozen=True, slots=True)
class SupervisorEvent:
    """Something the supervisor did or saw, with the reason in `data`."""

    kind: EventKind
    model: ModelId
    incarnation: int
    at: float
    """Unix seconds."""
    data: Mapping[str, Any] = field(default_factory=dict)


EventSink = Callable[[SupervisorEvent], None]
"""Must neither raise nor block."""
