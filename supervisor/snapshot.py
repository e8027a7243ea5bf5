"""Takes the frozen pictures of `supervisor.view` from live instances. Reads only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from registry.engine import DeviceId, ModelId
from registry.model import Model
from supervisor.comeback import Outlook
from supervisor.hindrance import hindrance
from supervisor.instance import Instance
from supervisor.lifecycle import WITH_TREE, State
from supervisor.progress import Estimate
from supervisor.view import DeviceShare, DeviceView, FleetView, InstanceView

if TYPE_CHECKING:
    from supervisor.fleet import Supervisor


def progress_of(supervisor: Supervisor, instance: Instance) -> Estimate | None:
    """How far a start is; None when nothing tells, or nothing starts."""
    if instance.state is not State.STARTING or instance.spec is None:
        return None
    world = supervisor.world
    learned = world.journal.learned(instance.spec.fingerprint)
    return instance.course.estimate(world.clock.now() - instance.started_at, learned)


def outlook(supervisor: Supervisor, instance: Instance) -> Outlook:
    """How a model stands for somebody who is sent away from it."""
    now, pool, forecast = supervisor.world.clock.now(), supervisor.pool, supervisor.forecast
    starting = instance.state is State.STARTING
    since = pool.oldest_wait(instance.id)
    ahead = [
        forecast.guessed_load_seconds(other.model)
        for other in supervisor.instances.values()
        if other is not instance
        and other.state is State.STOPPED
        and pool.queue_length(other.id)
        and pool.oldest_wait(other.id) >= since
    ]
    return Outlook(
        state=instance.state,
        load_seconds=forecast.guessed_load_seconds(instance.model),
        elapsed=now - instance.started_at if starting else 0.0,
        estimate=progress_of(supervisor, instance),
        retry_in=None if instance.retry_at is None else instance.retry_at - now,
        before=sum(ahead) / supervisor.policy.max_parallel_starts,
        rate=instance.demand.rate(now, instance.given),
    )


def instance_view(supervisor: Supervisor, instance: Instance) -> InstanceView:
    """One instance now."""
    world, pool, now = supervisor.world, supervisor.pool, supervisor.world.clock.now()
    record = instance.record
    waiting = pool.queue_length(instance.id)
    progress = progress_of(supervisor, instance)
    measured = world.memory.of_tree(record) if record is not None else {}
    idle = None
    if instance.state is State.READY and instance.leases == 0:
        idle = now - instance.idle_since
    oldest = instance.oldest_lease
    note = supervisor.phase(instance.id) if waiting or instance.state in WITH_TREE else ""
    return InstanceView(
        model=instance.id,
        engine=instance.model.engine,
        state=instance.state,
        incarnation=instance.incarnation,
        pid=record.pid if record is not None else None,
        port=record.port if record is not None else None,
        since=instance.since_wall,
        leases=instance.leases,
        oldest_lease_seconds=now - oldest if oldest is not None else 0.0,
        waiting=waiting,
        oldest_wait_seconds=pool.oldest_wait(instance.id),
        note=note,
        progress=progress.done if progress is not None else None,
        eta_seconds=progress.left if progress is not None else None,
        idle_seconds=idle,
        ttl=instance.model.ttl,
        pinned=instance.pinned,
        reserved_bytes=sum(instance.reserved.values()),
        measured_bytes=sum(measured.values()) if measured else None,
        shares=shares(instance.reserved, measured),
        crashes=instance.crashes.count(now),
        starts=instance.starts,
        retry_in_seconds=max(instance.retry_at - now, 0.0) if instance.retry_at is not None else None,
        last_failure=instance.setbacks.last,
        log=record.log if record is not None else instance.last_log,
        keep_alive=-1.0 if instance.kept == math.inf else instance.kept,
    )


def shares(reserved: Mapping[DeviceId, int], measured: Mapping[DeviceId, int]) -> tuple[DeviceShare, ...]:
    """What an instance has of each device."""
    devices = sorted(reserved.keys() | measured.keys())
    return tuple(
        DeviceShare(device, reserved.get(device, 0), measured.get(device))
        for device in devices
        if reserved.get(device) or measured.get(device)
    )


def device_views(supervisor: Supervisor) -> tuple[DeviceView, ...]:
    """The devices with what is reserved and what was measured."""
    usage = supervisor.world.memory.usage()
    reserved = reserved_by_device(supervisor.instances.values())
    views = []
    for device in supervisor.world.memory.devices():
        measured = usage.get(device.id)
        views.append(
            DeviceView(
                id=device.id,
                name=device.name,
                total_bytes=device.total_bytes,
                budget_bytes=device.budget_bytes,
                reserved_bytes=reserved.get(device.id, 0),
                used_bytes=measured.used_bytes if measured is not None else None,
                free_bytes=measured.free_bytes if measured is not None else None,
            )
        )
    return tuple(views)


def reserved_by_device(instances: Iterable[Instance]) -> dict[DeviceId, int]:
    """Sum of all reservations."""
    sums: dict[DeviceId, int] = {}
    for instance in instances:
        for device, bytes_ in instance.reserved.items():
            sums[device] = sums.get(device, 0) + bytes_
    return sums


Rest = tuple[object, ...]
"""All that can change about an instance, besides its model, that is stopped and that nobody waits for."""


def _rest(supervisor: Supervisor, instance: Instance) -> Rest | None:
    """How *instance* rests; None if it does not."""
    if (
        instance.state is not State.STOPPED
        or instance.leases
        or instance.reserved
        or instance.retry_at is not None
        or supervisor.pool.queue_length(instance.id)
    ):
        return None
    crashes = instance.crashes.count(supervisor.world.clock.now())
    return (
        instance.incarnation, instance.since_wall, instance.pinned, instance.starts, crashes,
        instance.setbacks.last, instance.last_log, instance.kept,
    )  # fmt: skip


class Pictures:
    """Draws the fleet again and again; a view of an instance at rest is drawn once, and kept while it rests.

    Most of hundreds of models rest, and drawing them all takes longer than a token may wait.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._resting: dict[ModelId, tuple[Model, Rest, InstanceView]] = {}

    def draw(self) -> FleetView:
        """Everything now."""
        supervisor, before, views = self._supervisor, self._resting, []
        resting: dict[ModelId, tuple[Model, Rest, InstanceView]] = {}
        for model in sorted(supervisor.instances):
            instance = supervisor.instances[model]
            rest = _rest(supervisor, instance)
            known = before.get(model)
            if rest is not None and known is not None and known[0] is instance.model and known[1] == rest:
                view = known[2]
            else:
                view = instance_view(supervisor, instance)
            if rest is not None:
                resting[model] = instance.model, rest, view
            views.append(view)
        self._resting = resting  # those of models that are gone are not in it
        return _fleet_view(supervisor, tuple(views))


def _fleet_view(supervisor: Supervisor, instances: tuple[InstanceView, ...]) -> FleetView:
    return FleetView(
        at=supervisor.world.clock.wall(),
        instances=instances,
        devices=device_views(supervisor),
        waiting=supervisor.pool.waiting,
        stopping=supervisor.stopping,
        hindrance=_hindrance(supervisor),
    )


def _hindrance(supervisor: Supervisor) -> str:
    world, scheduler = supervisor.world, supervisor.scheduler
    if supervisor.is_served and any(i.state in WITH_TREE for i in supervisor.instances.values()):
        return ""  # the usual case, without a picture of the whole fleet
    free = {device: measured.free_bytes for device, measured in world.memory.usage().items()}
    return hindrance(scheduler.picture(), free=free, storage=world.storage(), is_served=supervisor.is_served)
