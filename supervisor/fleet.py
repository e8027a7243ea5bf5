"""`Supervisor`: owns all instances, runs admission and reaping on events, and is the face for the router.

Everything here runs on the event loop's thread. Decisions are `admission.decide`, carried out by
`supervisor.scheduler`, and `reaping.reap`, carried out by `supervisor.reaper`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from registry.engine import DeviceId, ModelId
from registry.model import Model
from supervisor import snapshot
from supervisor.accounts import Accounts
from supervisor.admission import fits_nowhere
from supervisor.changeover import Changeovers
from supervisor.comeback import comes_back_in
from supervisor.departure import Holds
from supervisor.errors import ModelFailedError, StoppingError, SupervisorError
from supervisor.forecast import Forecast
from supervisor.instance import Instance
from supervisor.lifecycle import WITH_TREE, Event, State
from supervisor.news import Unwanted
from supervisor.policy import Policy
from supervisor.pool import InstanceLease, Pool, Waiter
from supervisor.ports import ChildRecord, EventKind, Leftover, SupervisorEvent, Timer
from supervisor.reaper import Reaper
from supervisor.release import Releases, named
from supervisor.scheduler import Books, Scheduler, too_large
from supervisor.view import Explanation, FleetView, InstanceView
from supervisor.watchers import Watchers
from supervisor.wording import loading, situation
from supervisor.world import World

MEASURE_EVERY = 5.0
"""Seconds between two looks at what the trees really hold: a footprint grows slowly."""


_UNUSED = "abandoned"
"""Outcome of a lease that nobody came to use."""


class Supervisor:
    """The fleet. `supervisor.view.Fleet` says what control may do with it."""

    def __init__(self, models: Iterable[Model], world: World, policy: Policy) -> None:
        self.world = world
        self.policy = policy
        self.pool = Pool(world.clock, policy, self)
        self.stopping = False
        self.instances: dict[ModelId, Instance] = {}
        self._budgets = {device.id: device.budget_bytes for device in world.memory.devices()}
        self.accounts = Accounts(world.clock)
        self.releases = Releases(
            world.clock,
            world.memory,
            timeout=policy.free_timeout,
            freed=self._freed,
            late=self._held_on,
        )
        self.reaper = Reaper(world, self.pool, self.instances, self._emit)
        self.forecast = Forecast(world.journal, self._budgets)
        books = Books(self.instances, self.pool, self.forecast, self.releases, self.accounts, self._budgets)
        self.scheduler = Scheduler(world, policy, books)
        self._holds = Holds({})
        self._retired: set[ModelId] = set()
        """No longer in the catalog, but with a tree that has not ended yet."""
        self._measuring_timer: Timer | None = None
        self._watchers = Watchers()
        self._pictures = snapshot.Pictures(self)
        self.changeovers = Changeovers(self, self._emit, self._watchers, budgets=self._budgets)
        for model in models:
            self.add(model)

    def add(self, model: Model) -> None:
        """Own an instance of *model* from now on, if it can be started here."""
        if model.spec is None or model.problem is not None:
            return
        self.instances[model.id] = Instance(model, self.world, self.policy, self)
        if model.preload:
            self.scheduler.wanted.add(model.id)

    # -- beginning, reloading, ending --------------------------------------------------------------

    async def begin(self, holding: Mapping[ModelId, int] | None = None) -> None:
        """Adopt what an earlier daemon left, with the leases that it is still *holding*, then start what
        is to be preloaded. Once, before serving."""
        self._holds = Holds(holding or {})
        survivors = await self.world.launcher.survivors()
        # Nothing is started before all are adopted: what is to be preloaded may be among them.
        with self.scheduler.held():
            for survivor in survivors:
                self._adopt(survivor)
        alive = {record.socket for record in survivors}
        for remembered in self.world.journal.children():
            if remembered.socket not in alive:
                self.world.journal.child_ended(remembered)  # the launcher has ended what was left of it
        self.scheduler.consider()
        self._measure()

    def _adopt(self, record: ChildRecord) -> None:
        instance = self.instances.get(record.model)
        places = instance.model.places if instance is not None else ()
        place = next((n for n, spec in enumerate(places) if spec.fingerprint == record.fingerprint), None)
        if instance is None or place is None or instance.state is not State.STOPPED:
            # Unknown by now, or to be started in another way: it goes, and its memory with it.
            if not self._holds.keep(record):
                self.world.launcher.attach(record, Unwanted(record, self.world))
            return
        instance.adopt(record, places[place], self.forecast.need(instance.model, place))
        instance.leases += self._holds.count(record.model)

    def returned(self, model: ModelId) -> None:
        """A lease of the earlier daemon came back."""
        instance = self.instances.get(model)
        if instance is not None and self._holds.counts(model):
            self.pool.returned(instance, 0, failed=False)
        gone = self._holds.returned(model)
        if gone is not None:
            self.world.launcher.attach(gone, Unwanted(gone, self.world))

    def retire(self, instance: Instance) -> None:
        """It is in the catalog no more: stopped once drained, and forgotten when its tree is gone."""
        self._retired.add(instance.id)
        instance.stop()
        self._forget_if_gone(instance)

    def keep(self, instance: Instance) -> None:
        """It is in the catalog, perhaps again."""
        self._retired.discard(instance.id)

    def _forget_if_gone(self, instance: Instance) -> None:
        if instance.id in self._retired and instance.state not in WITH_TREE:
            self._retired.discard(instance.id)
            self.instances.pop(instance.id, None)
            self.accounts.forget(instance.id)

    def stop_deciding(self) -> None:
        """No admission, no eviction, no reaping from here on."""
        self.stopping = True
        self.reaper.close()
        self.scheduler.stop()
        if self._measuring_timer is not None:
            self._measuring_timer.cancel()

    async def shutdown(self, *, drain_grace: float) -> None:
        """Refuse what waits, give open answers *drain_grace* seconds, stop every tree and wait until it is
        gone."""
        self.stop_deciding()
        for model in self.pool.models_waited_for():
            self.pool.fail(model, StoppingError("the daemon is shutting down", retry_after=5.0))
        for instance in self.instances.values():
            instance.stop(drain_grace=drain_grace)
        await self._watchers.until(lambda: all(i.state not in WITH_TREE for i in self.instances.values()))

    def hurry(self) -> None:
        """Cut what still drains and kill what still stops: somebody asked twice."""
        for instance in self.instances.values():
            instance.hurry()

    # -- requests ----------------------------------------------------------------------------------

    def lease_now(self, model: ModelId) -> InstanceLease | None:
        """See `Pool.lease_now`."""
        return self.pool.lease_now(model)

    async def lease(
        self, model: ModelId, *, timeout: float | None = None, request: str = "", priority: int = 0
    ) -> InstanceLease:
        """A lease, waiting for a start, for memory or for a slot as `ask` says.

        Cancelling it gives the place in the queue back, and the lease too if it had just come. *request* is
        the id by which `explain` finds it.
        """
        lease = self.lease_now(model)
        if lease is not None:
            return lease
        future: asyncio.Future[InstanceLease] = asyncio.get_running_loop().create_future()

        def granted(lease: InstanceLease) -> None:
            if future.done():
                lease.release(_UNUSED)
            else:
                future.set_result(lease)

        def refused(error: SupervisorError) -> None:
            if not future.done():
                future.set_exception(error)

        waiter = self.ask(
            model, timeout=timeout, request=request, priority=priority, granted=granted, refused=refused
        )
        try:
            return await future
        except asyncio.CancelledError:
            waiter.cancel()
            if future.done() and not future.cancelled() and future.exception() is None:
                # Granted and cancelled in the same turn of the loop.
                future.result().release(_UNUSED)
            raise

    def ask(
        self,
        model: ModelId,
        *,
        timeout: float | None = None,
        request: str = "",
        priority: int = 0,
        granted: Callable[[InstanceLease], None],
        refused: Callable[[SupervisorError], None],
    ) -> Waiter:
        """Queue for a lease; one of the callbacks answers later, exactly once, unless it is cancelled.

        | state | what happens |
        | --- | --- |
        | READY | a slot as soon as one is free |
        | STOPPED, STARTING, DRAINING, STOPPING | admission starts it when it may, then a slot |
        | BACKOFF after a crash of an instance that served | waits for the restart |
        | BACKOFF after a failed start, FAILED | raises ModelFailedError: the cause, when to come back |

        Raises ModelTooLargeError for a model that can never fit, QueueFullError, StoppingError.
        """
        if self.stopping:
            raise StoppingError("the daemon is shutting down", retry_after=5.0)
        instance = self.instances.get(model)
        if instance is None or model in self._retired:
            raise StoppingError(f"{model} is no longer configured")
        if instance.state is State.FAILED:
            raise instance.failure()
        if instance.state is State.BACKOFF and not instance.restart_helps:
            raise instance.failure()
        if instance.state is State.STOPPED:
            pinned = {
                i.id: i.reserved
                for i in self.instances.values()
                if i.pinned and i.state in (State.STARTING, State.READY)
            }
            never = fits_nowhere(self.forecast.needs(instance.model), self._budgets, pinned)
            if never is not None:
                raise too_large(model, never)
        limit = self.policy.request_timeout if timeout is None else timeout
        picture = self.scheduler.picture(whole=False, of=model)
        account = self.accounts.open(request, model, *situation(picture, model))

        leased, denied = self.accounts.follow(account, granted, refused)
        waiter = self.pool.ask(model, timeout=limit, priority=priority, granted=leased, refused=denied)
        waiter.left = lambda: self.accounts.close(account, "gone")
        return waiter

    @property
    def is_served(self) -> bool:
        """Asked between two turns of the loop: every mailbox is empty, and admission decides."""
        return self.scheduler.is_served and not any(i.has_mail for i in self.instances.values())

    # -- what control does -------------------------------------------------------------------------

    def view(self) -> FleetView:
        """The fleet now."""
        return self._pictures.draw()

    def instance(self, model: ModelId) -> InstanceView | None:
        """One of it; None for a model the supervisor does not own."""
        found = self.instances.get(model)
        return snapshot.instance_view(self, found) if found is not None else None

    def explain(self, request: str) -> Explanation | None:
        """Why the request of that id waited; None when none has, or too many have since."""
        return self.accounts.explain(request)

    def address(self, model: ModelId) -> tuple[int, str] | None:
        """(port on the loopback, key) of its tree, for asking the engine about itself; None without one."""
        found = self.instances.get(model)
        record = found.record if found is not None else None
        return (record.port, record.key) if record is not None else None

    async def load(self, model: ModelId, *, timeout: float | None = None) -> InstanceView:
        """Start it and wait until it is ready. A model in BACKOFF or FAILED is tried again at once.

        Raises a `SupervisorError` as a request would.
        """
        instance = self._owned(model)
        if instance.state in (State.BACKOFF, State.FAILED):
            instance.stop()
        lease = await self.lease(model, timeout=timeout)
        lease.release(_UNUSED)
        return snapshot.instance_view(self, instance)

    async def unload(self, model: ModelId, *, force: bool = False) -> InstanceView:
        """Drain it (or, by *force*, cut what is in flight), stop it and wait until its tree is gone."""
        instance = self._owned(model)
        self.scheduler.wanted.discard(model)
        self.changeovers.call_off(model, f"{model} was unloaded by the operator")
        self.pool.fail(model, StoppingError(f"{model} was unloaded by the operator"))
        for lease in instance.held:
            lease.revoked = True  # what is cut by this would otherwise start the model again
        instance.stop(drain_grace=0.0 if force else None)
        await self._watchers.until(lambda: instance.state not in WITH_TREE)
        return snapshot.instance_view(self, instance)

    def pin(self, model: ModelId, *, pinned: bool) -> InstanceView:
        """Keep it when others want its memory and when it idles, or no more; until the daemon ends.

        Raises ModelFailedError for a model that is not run by this daemon.
        """
        instance = self._owned(model)
        instance.pinned_by_hand = pinned
        self.reaper.look()
        self.scheduler.consider()
        return snapshot.instance_view(self, instance)

    def _owned(self, model: ModelId) -> Instance:
        instance = self.instances.get(model)
        if instance is None:
            raise ModelFailedError(f"{model} is not run by this daemon")
        return instance

    # -- pictures and texts ------------------------------------------------------------------------

    def ready_in(self, model: ModelId) -> float | None:
        """Seconds until it is likely to be ready; None where only a guess could be made."""
        instance = self.instances.get(model)
        if instance is None:
            return None
        outlook = snapshot.outlook(self, instance)
        known = outlook.estimate is not None or self.forecast.load_seconds(instance.model) is not None
        return comes_back_in(outlook) if known else None

    def phase(self, model: ModelId) -> str:
        """What it is doing, or what those who ask for it wait for, for people."""
        instance = self.instances.get(model)
        if instance is None:
            return ""
        if instance.state is State.STARTING:
            return loading(model, snapshot.progress_of(self, instance), instance.note)
        if instance.state is State.BACKOFF and instance.restart_helps:
            return f"restarting {model}"
        if instance.state is State.READY and self.pool.queue_length(model):
            return f"waiting for a free slot of {model}"
        return self.scheduler.notes.get(model, instance.note) or instance.note

    # -- news from instances (Owner) ---------------------------------------------------------------

    def published(self, instance: Instance) -> None:
        """It is ready."""
        self.accounts.tell(
            instance.id,
            "ready",
            f"ready, {self.world.clock.now() - instance.started_at:.1f} s after its start",
        )
        self.changeovers.published(instance)
        self.pool.publish(instance)

    def withdrawn(self, instance: Instance) -> None:
        """It is not any more."""
        self.pool.withdraw(instance)

    def reclaimed(self, record: ChildRecord, reserved: Mapping[DeviceId, int]) -> None:
        """Its tree is empty; a GPU's memory takes a moment longer."""
        self.releases.begin(record, reserved)

    def _freed(self) -> None:
        self.scheduler.consider()

    def _held_on(self, model: ModelId, leftovers: tuple[Leftover, ...]) -> None:
        if model in self.instances:
            self._emit(
                EventKind.MEMORY_HELD, model, by=named(leftovers), pids=[left.pid for left in leftovers]
            )

    def failed(self, instance: Instance, error: ModelFailedError) -> None:
        """Its start has failed."""
        if self.changeovers.failed(instance, error):
            return
        self.accounts.tell(instance.id, "failed", str(error))
        self.pool.fail(instance.id, error)

    def rested(self, instance: Instance) -> None:
        """It is idle, for another time than the reaper has reckoned with."""
        self.reaper.look()

    def changed(self, instance: Instance) -> None:
        """Its state is another: decide anew, and tell those who watch."""
        if instance.state in (State.STOPPED, State.READY):
            self.forecast.forget(instance.id)
        self.changeovers.look(instance)
        if instance.state is State.BACKOFF and instance.model.preload:
            self.scheduler.wanted.add(instance.id)
        if instance.state is State.READY:
            self.reaper.look()
        self._forget_if_gone(instance)
        self.scheduler.consider()
        self._watchers.look()

    # -- news from the pool (PoolOwner) ------------------------------------------------------------

    def demand_changed(self, model: ModelId) -> None:
        """Somebody waits, left, or has made an instance idle that others wait for."""
        self.scheduler.consider()

    def comes_back_in(self, model: ModelId) -> float:
        """See `supervisor.comeback`."""
        return comes_back_in(snapshot.outlook(self, self.instances[model]))

    def doubted(self, instance: Instance, generation: int) -> None:
        """A request failed on that incarnation: prove it again before anybody else is sent there."""
        record = instance.record
        if record is not None and record.pid == generation and instance.state is State.READY:
            instance.post(Event.SUSPECT)

    # -- memory ------------------------------------------------------------------------------------

    def _measure(self) -> None:
        """Keep the books of what the trees really hold."""
        for instance in list(self.instances.values()):
            if instance.state is State.READY and instance.measure():
                self.scheduler.relieve(instance)
        if not self.stopping:
            self._measuring_timer = self.world.clock.call_later(MEASURE_EVERY, self._measure)

    def _emit(self, kind: EventKind, model: ModelId, **data: object) -> None:
        instance = self.instances.get(model)
        incarnation = 0 if instance is None else instance.incarnation
        self.world.emit(SupervisorEvent(kind, model, incarnation, self.world.clock.wall(), data))
