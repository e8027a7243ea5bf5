"""Takes the frozen pictures that admission and reaping decide by from live instances. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from registry.engine import DeviceId, ModelId
from supervisor.admission import FleetPicture, ModelPicture
from supervisor.forecast import Forecast
from supervisor.instance import Instance
from supervisor.lifecycle import State
from supervisor.pool import Pool
from supervisor.reaping import Idleness
from supervisor.release import Releases


def fleet_picture(
    instances: Iterable[Instance],
    pool: Pool,
    forecast: Forecast,
    *,
    budgets: Mapping[DeviceId, int],
    wanted: Collection[ModelId],
    releases: Releases,
    now: float,
) -> FleetPicture:
    """All models as admission sees them; *wanted* are to be started although nobody waits."""
    return FleetPicture(
        tuple(
            _model_picture(instance, pool, forecast, wanted=instance.id in wanted, now=now)
            for instance in instances
        ),
        budgets,
        releases.coming(),
        releases.stuck(),
        releases.who(),
    )


def has_a_part(instance: Instance, pool: Pool, wanted: Collection[ModelId]) -> bool:
    """Whether *instance* can matter to a decision: it runs or holds something, or is to run. Of hundreds of
    models nearly all have none, and drawing them takes longer than a token may wait."""
    return (
        instance.state is not State.STOPPED
        or bool(instance.reserved)
        or instance.id in wanted
        or pool.queue_length(instance.id) > 0
    )


def _model_picture(
    instance: Instance, pool: Pool, forecast: Forecast, *, wanted: bool, now: float
) -> ModelPicture:
    model, spec = instance.model, instance.model.spec
    need, *others = forecast.needs(model)
    ready = instance.state is State.READY
    waiting = pool.queue_length(model.id)
    return ModelPicture(
        model=model.id,
        state=instance.state,
        need=need,
        others=tuple(others),
        reserved=instance.reserved,
        leases=instance.leases,
        waiting=waiting,
        oldest_wait=min(pool.oldest_wait(model.id), now - instance.evicted_at) if waiting else 0.0,
        wanted=wanted,
        priority=model.priority + (pool.priority(model.id) if waiting else 0),
        group=model.group,
        exclusive=model.exclusive,
        pinned=instance.pinned,
        idle=now - instance.idle_since if ready and instance.leases == 0 else 0.0,
        resident=now - instance.ready_at if ready else 0.0,
        starts_alone=spec.measures_free_memory if spec is not None else False,
        lacked=instance.holding.lacked,
        load_seconds=forecast.guessed_load_seconds(model),
        rate=instance.demand.rate(now, instance.given),
    )


def idleness(instances: Iterable[Instance], pool: Pool, *, now: float) -> Iterator[Idleness]:
    """All instances as reaping sees them."""
    for instance in instances:
        yield Idleness(
            model=instance.id,
            state=instance.state,
            leases=instance.leases,
            waiting=pool.queue_length(instance.id),
            idle=now - instance.idle_since,
            stays=instance.stays,
            pinned=instance.pinned,
        )
