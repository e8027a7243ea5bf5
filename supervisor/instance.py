"""One model's instance: runs `lifecycle.step` on what happens and performs the commands.

An actor without a task: `post` puts an event into the mailbox and, unless a step is already being performed,
works the mailbox off at once. Nothing here awaits, so nothing can happen between a decision and the state
it was made on; the world answers later through listeners, on the same thread (`supervisor.ports`). See
docs/adr/0002.

Only this module assigns an instance's state. Everybody else posts events and reads attributes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from registry.engine import DeviceId, LaunchSpec, ModelId
from registry.model import Model
from supervisor.alarm import Alarm
from supervisor.crashes import CrashMemory
from supervisor.demand import Demand
from supervisor.errors import ModelFailedError
from supervisor.failures import Setbacks, failed_error, seen
from supervisor.holding import Holding
from supervisor.lifecycle import Command, Event, IllegalEventError, State, step
from supervisor.milestone import own_words
from supervisor.news import ChildNews, ReadinessNews
from supervisor.policy import Policy
from supervisor.ports import (
    Cancellable,
    Child,
    ChildRecord,
    EventKind,
    ExitReport,
    Held,
    SupervisorEvent,
)
from supervisor.progress import Course, stall_limit
from supervisor.world import Owner, World

KILL_MARGIN = 5.0
"""Seconds the shim gets on top of the grace before we insist; it escalates by itself within the grace."""


class Instance:
    """The instance of one model. `repr` is worth asserting on."""

    def __init__(self, model: Model, world: World, policy: Policy, owner: Owner) -> None:
        self.model = model
        self.state = State.STOPPED
        self.incarnation = 0
        self.leases = 0
        self.given = 0
        """Leases ever given."""
        self.demand = Demand(world.clock.now())
        self.held: dict[Held, float] = {}
        """The leases that are out, oldest first, and when each was given."""
        self.pinned_by_hand: bool | None = None
        """What an operator said at run time; None leaves it to the configuration."""
        self.kept: float | None = None
        """Seconds that the last request which said so lets it stay, inf for ever; None leaves it to `ttl`."""
        self.holding = Holding()
        self.child: Child | None = None
        self.spec: LaunchSpec | None = None
        self.since_wall = world.clock.wall()
        self.started_at = 0.0
        self.ready_at = 0.0
        self.idle_since = 0.0
        self.evicted_at = -math.inf
        """When it was last stopped for another model."""
        self.starts = 0
        self.note = ""
        self.last_log: str | None = None
        self.retry_at: float | None = None
        self.proved = False
        """This incarnation has been ready once."""
        self.course = Course()
        self.crashes = CrashMemory(policy)
        self.setbacks = Setbacks(policy)
        self._world = world
        self._policy = policy
        self._owner = owner
        self._mailbox: deque[Event] = deque()
        self._working = False
        self._port = 0
        self._place = 0
        self._adopted = False
        self._check: Cancellable | None = None
        self._grace = Alarm(world.clock, self._grace_over)
        self._retry = Alarm(world.clock, self._retry_due)
        self._drain_grace = policy.drain_grace
        self._drained_by = math.inf
        self._on_return: Callable[[], None] | None = None  # set once another daemon minds the tree
        self._perform = {
            Command.SPAWN: self._spawn,
            Command.PROBE: self._probe,
            Command.UNPROBE: self._unprobe,
            Command.PUBLISH: self._publish,
            Command.WITHDRAW: self._withdraw,
            Command.AWAIT_DRAIN: self._await_drain,
            Command.BLAME: self._blame,
            Command.TERMINATE: self._terminate,
            Command.KILL: self._kill,
            Command.RECLAIM: self._reclaim,
            Command.BACK_OFF: self._back_off,
            Command.ARM_RETRY: self._arm_retry,
            Command.DISARM_RETRY: self._disarm_retry,
            Command.FAIL_WAITERS: self._fail_waiters,
        }

    def __repr__(self) -> str:
        return (
            f"<Instance {self.id} {self.state.name} inc={self.incarnation}"
            f" port={self._port} leases={self.leases}>"
        )

    # -- what others ask ---------------------------------------------------------------------------

    @property
    def id(self) -> ModelId:
        """The model's id; there is one instance per model."""
        return self.model.id

    @property
    def record(self) -> ChildRecord | None:
        """Identity of the tree, while there is one."""
        return self.child.record if self.child is not None else None

    @property
    def reserved(self) -> Mapping[DeviceId, int]:
        """Bytes set aside for it; empty without a tree."""
        return self.holding.reserved

    @property
    def pinned(self) -> bool:
        """Never stopped for another model and never for idleness."""
        return self.model.pin if self.pinned_by_hand is None else self.pinned_by_hand

    @property
    def has_mail(self) -> bool:
        """Asked from outside: something that happened is still to be worked off, and nobody is at it."""
        return bool(self._mailbox)

    @property
    def stays(self) -> float:
        """Seconds that it may be idle; inf: for ever."""
        return self.kept if self.kept is not None else self.model.ttl or math.inf

    @property
    def oldest_lease(self) -> float | None:
        """When the oldest lease that is out was given; None when none is."""
        return next(iter(self.held.values()), None)

    @property
    def restart_helps(self) -> bool:
        """Those who wait should go on waiting: it had served, or only its port or some memory was taken."""
        return self.proved or self.setbacks.retries

    def failure(self) -> ModelFailedError:
        """The error for a request that this instance's last failure concerns."""
        retry_in = None if self.retry_at is None else self.retry_at - self._world.clock.now()
        return failed_error(self.id, self.state, self.setbacks.last, retry_in)

    # -- what others tell it -----------------------------------------------------------------------

    def let_go(self, returned: Callable[[], None]) -> None:
        """Another daemon minds the tree: nothing is done here any more; *returned* hears of each lease."""
        self._unprobe()
        self._grace.call_off()
        self._disarm_retry()
        self._on_return = returned

    def post(self, event: Event) -> None:
        """Put *event* into the mailbox; work it off unless that is already being done."""
        if self._on_return is not None:
            return
        self._mailbox.append(event)
        if self._working:
            return
        before = self.state
        self._working = True
        try:
            while self._mailbox:
                self._take(self._mailbox.popleft())
        finally:
            self._working = False
        if self.state is not before:
            self._owner.changed(self)

    def start(self, reserve: Mapping[DeviceId, int], place: int = 0) -> None:
        """Admission lets it start at one of its places, with *reserve* bytes set aside. Only in STOPPED."""
        if self.state is State.STOPPED:
            self._place = place
            self.holding.grant(reserve)
        self.post(Event.WANTED)

    def adopt(self, record: ChildRecord, spec: LaunchSpec, reserve: Mapping[DeviceId, int]) -> None:
        """Take over a tree of an earlier daemon: probed as a fresh one is, and not spawned."""
        self.incarnation = record.incarnation
        self.holding.grant(reserve)
        self.spec = spec
        self._port = record.port
        self._begin(adopted=True)
        self.post(Event.ADOPTED)
        self._world.launcher.attach(record, ChildNews(self))

    def stop(self, *, drain_grace: float | None = None) -> None:
        """Evicted, idle, unloaded or shut down. Leases get *drain_grace* seconds (default: the policy's)."""
        grace = self._policy.drain_grace if drain_grace is None else drain_grace
        if self.state is State.DRAINING and self._world.clock.now() + grace < self._drained_by:
            self._arm_drain(grace)
        self._drain_grace = grace
        self.post(Event.STOP)

    def evict(self, *, drain_grace: float) -> None:
        """Stop it for another model, which comes before those who still wait for this one."""
        self.evicted_at = self._world.clock.now()
        self.stop(drain_grace=drain_grace)

    def hurry(self) -> None:
        """End it now: no more grace for its leases, none for its tree."""
        self.stop(drain_grace=0.0)
        if self.state is State.DRAINING:
            self.post(Event.GRACE_OVER)
        if self.state is State.STOPPING:
            self.post(Event.GRACE_OVER)

    def keep(self, seconds: float) -> None:
        """A request lets it stay so long after its last lease, as far as the operator does."""
        self.kept = min(seconds, self.model.ttl_max or math.inf)

    def lease_returned(self) -> None:
        """A lease came back; the last one ends draining."""
        if self.leases < 1:
            raise RuntimeError(f"a lease of {self.id} was returned that is not out")
        self.leases -= 1
        if self._on_return is not None:
            self._on_return()
        elif self.leases == 0:
            self.idle_since = self._world.clock.now()
            if self.state is State.DRAINING:
                self.post(Event.DRAINED)
            elif self.kept is not None:
                self._owner.rested(self)

    def measure(self) -> bool:
        """Look at what the tree holds: remember its peak, and reserve no less than it has taken.

        Whether that is more than was reserved.
        """
        record = self.record
        return record is not None and self.holding.see(self._world.memory.of_tree(record))

    # -- what the world tells it (through supervisor.news) ------------------------------------------

    def on_spawned(self, child: Child) -> None:
        """Its tree exists."""
        self.child = child
        record = child.record
        self.last_log = record.log
        self._world.memory.watch(record)
        self._world.journal.child_started(record)
        self._emit(EventKind.SPAWNED, pid=record.pid, port=record.port, adopted=self._adopted)
        if self.state is State.STARTING:
            self._probe()
        else:
            self._terminate()  # asked to stop while it was being born

    def on_spawn_failed(self, reason: str) -> None:
        """It has no tree."""
        if self._adopted:
            # A survivor that went before we could fetch it: a fresh start is as good as any.
            self.proved = True
        self.setbacks.report = ExitReport(code=None, tail=(reason,))
        self.post(Event.SPAWN_FAILED)

    def on_exited(self, report: ExitReport) -> None:
        """Its tree is empty."""
        self.setbacks.report = report
        self._emit(EventKind.EXITED, code=report.code, signal=report.signal, lost=report.lost)
        blamed = self.state is State.STOPPING and self.setbacks.blamed
        self.post(Event.EXITED_BLAMED if blamed else Event.EXITED)

    def on_progress(self, note: str) -> None:
        """What its start is at."""
        self.note = note
        if self.child is not None:
            self.course.see(own_words(self.child.tail), self._world.clock.now() - self.started_at)

    def on_not_ready(self, reason: str, code: str) -> None:
        """Its readiness check has given up."""
        self._check = None
        self.setbacks.blame(reason, code)
        self.post(Event.NOT_READY)

    # -- the mailbox -------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        try:
            result = step(self.state, event)
        except IllegalEventError as error:
            # Ours to mend. To the instance the safe thing is to be as if nothing had been said.
            self._emit(EventKind.BUG, error=str(error))
            return
        if result.state is not self.state:
            previous, self.state = self.state, result.state
            self.since_wall = self._world.clock.wall()
            self._emit(EventKind.STATE_CHANGED, previous=previous.value, state=result.state.value)
        for command in result.commands:
            self._perform[command]()

    # -- commands ----------------------------------------------------------------------------------

    def _spawn(self) -> None:
        spec = self.spec = self.model.places[self._place]
        self.incarnation = self._world.journal.next_incarnation(self.id)
        self.starts += 1
        self._begin(adopted=False)
        self._port = self._world.ports.take()
        self._world.launcher.launch(
            spec,
            port=self._port,
            key=self._world.new_key() if spec.needs_key else "",
            incarnation=self.incarnation,
            listener=ChildNews(self),
        )

    def _begin(self, *, adopted: bool) -> None:
        self._adopted = adopted
        self.started_at = self._world.clock.now()
        self.proved = False
        self.retry_at = None
        self.holding.peak = {}
        self.kept = None
        self.course = Course()
        self.setbacks.begin()
        self._drain_grace = self._policy.drain_grace
        self.note = "adopting" if adopted else "starting"

    def _probe(self) -> None:
        if self.child is None or self.spec is None:
            return  # on_spawned comes back here
        self._unprobe()
        learned = self._world.journal.learned(self.spec.fingerprint)
        patience = stall_limit(self.spec.stall_timeout, learned.load_seconds)
        spec = replace(self.spec, stall_timeout=patience)
        self._check = self._world.readiness.check(self.child, spec, ReadinessNews(self))

    def _unprobe(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _publish(self) -> None:
        now = self._world.clock.now()
        took = now - self.started_at
        self._check = None
        self.note = ""
        if not self.proved:
            self.proved = True
            self.ready_at = self.idle_since = now
            if self.record is not None:
                self._world.memory.watch(self.record)  # what it held while it loaded is not what it needs
            if not self._adopted and self.spec is not None:
                self._world.journal.learn(
                    self.spec.fingerprint, load_seconds=took, stages=self.course.reached
                )
        self.crashes.half_open = False
        self.setbacks.settle()
        self.holding.lacked = {}
        record = self.record
        self._emit(
            EventKind.ADOPTED if self._adopted else EventKind.READY,
            took_seconds=round(took, 3),
            port=self._port,
            pid=record.pid if record is not None else None,
        )
        self._owner.published(self)

    def _withdraw(self) -> None:
        self._owner.withdrawn(self)

    def _await_drain(self) -> None:
        self.note = "draining"
        if self.leases == 0:
            self.post(Event.DRAINED)
        else:
            self._arm_drain(self._drain_grace)

    def _blame(self) -> None:
        # What the check said is the cause: the exit that follows is our own doing. Said now, so that those
        # who wait need not wait for the tree to be gone as well.
        tail = self.child.tail if self.child is not None else ()
        self._remember(ExitReport(code=None, tail=tail))

    def _terminate(self) -> None:
        self.note = "stopping"
        if self.child is None:
            return  # on_spawned comes back here
        self.measure()
        if self.spec is None:
            self._kill()
            return
        self._grace.set(self.spec.stop.grace_seconds + KILL_MARGIN)
        self.child.stop(self.spec.stop)

    def _kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            # A tree in an uninterruptible wait outlives even this: insist until it is gone.
            self._grace.set(KILL_MARGIN)

    def _reclaim(self) -> None:
        self._grace.call_off()
        self.note = ""
        reserved = self.holding.give_back()
        if self._port:
            self._world.ports.give_back(self._port)
            self._port = 0
        if self.child is None:
            return
        record = self.child.record
        if self.holding.peak and self.proved and self.spec is not None:
            self._world.journal.learn(self.spec.fingerprint, peak_bytes=self.holding.peak)
        self._world.memory.unwatch(record)
        self._owner.reclaimed(record, reserved)
        self._world.journal.child_ended(record)
        self.child = None

    def _back_off(self) -> None:
        if not self.setbacks.blamed:
            self._remember(self.setbacks.report)
        if self.setbacks.retries:
            self._arm_retry_in(0.0)
            return
        self.setbacks.settle()
        self.holding.lacked = {}
        now = self._world.clock.now()
        pause = self.crashes.add(now, proved=self.proved, jitter=self._world.jitter())
        if pause is None:
            self.post(Event.CRASH_LOOP)
        else:
            self._arm_retry_in(pause)

    def _remember(self, report: ExitReport) -> None:
        found = self._world.diagnose(self.model, report)
        cause = self.setbacks.cause(found, spoke=bool(report.tail))
        failure = seen(cause, at=self._world.clock.wall(), incarnation=self.incarnation)
        self.setbacks.remember(failure, self.holding, proved=self.proved)
        self._emit(EventKind.FAILED, cause=cause.cause, code=cause.code)

    def _fail_waiters(self) -> None:
        if self.state is State.FAILED or not self.restart_helps:
            self._owner.failed(self, self.failure())

    # -- timers ------------------------------------------------------------------------------------

    def _arm_retry(self) -> None:
        self.crashes.half_open = True
        self._arm_retry_in(self._policy.retry_failed_after)

    def _arm_retry_in(self, seconds: float) -> None:
        self.retry_at = self._world.clock.now() + seconds
        self._retry.set(seconds)

    def _retry_due(self) -> None:
        self.retry_at = None
        self.post(Event.RETRY_DUE)

    def _disarm_retry(self) -> None:
        self.retry_at = None
        self._retry.call_off()

    def _arm_drain(self, seconds: float) -> None:
        self._drained_by = self._world.clock.now() + seconds
        self._grace.set(seconds)

    def _grace_over(self) -> None:
        if self.state in (State.DRAINING, State.STOPPING):
            self.post(Event.GRACE_OVER)

    def _emit(self, kind: EventKind, **data: object) -> None:
        event = SupervisorEvent(kind, self.id, self.incarnation, self._world.clock.wall(), data)
        self._world.emit(event)
