"""Leases for the front: on instances of the supervisor and on running servers, with one face."""

from __future__ import annotations

from typing import Any

from registry.engine import ModelId
from registry.model import Model
from registry.virtual import Standing, Warmth
from router.endpoints import Endpoints
from router.ports import Lease, Route
from supervisor.fleet import Supervisor
from supervisor.lifecycle import State

_WARMTH = {
    State.READY: Warmth.READY,
    State.STARTING: Warmth.BUSY,
    State.BACKOFF: Warmth.UNWELL,
    State.FAILED: Warmth.UNWELL,
}


class FleetUpstreams:
    """`router.ports.Upstreams`."""

    def __init__(self, supervisor: Supervisor, endpoints: Endpoints) -> None:
        self._supervisor = supervisor
        self._endpoints = endpoints

    def lease_now(self, route: Route) -> Lease | None:
        """See `router.ports.Upstreams`."""
        model: Any = route.handle
        if model.endpoint is not None:
            return self._endpoints.lease(model)
        return self._supervisor.lease_now(model.id)

    def standing(self, model: Model) -> Standing:
        """How soon *model* can answer. Takes no picture of the fleet: it is asked for many models at once."""
        if model.endpoint is not None:
            return Standing(Warmth.READY if self._endpoints.is_up(model) else Warmth.UNWELL)
        instance = self._supervisor.instances.get(model.id)
        if instance is None:
            return Standing(Warmth.UNWELL)
        warmth = _WARMTH.get(instance.state, Warmth.COLD)
        limit, queued = model.concurrency, self._supervisor.pool.queue_length(model.id)
        if warmth is Warmth.READY and (queued or (limit is not None and instance.leases >= limit)):
            warmth = Warmth.BUSY
        return Standing(warmth, instance.leases, self._supervisor.forecast.load_seconds(model))

    async def lease(
        self, route: Route, *, timeout: float | None = None, request: str = "", priority: int = 0
    ) -> Lease:
        """See `router.ports.Upstreams`."""
        model = route.handle
        assert isinstance(model, Model), "routes are made by CatalogDirectory"
        if model.endpoint is not None:
            return self._endpoints.lease(model)
        return await self._supervisor.lease(model.id, timeout=timeout, request=request, priority=priority)

    def ready_in(self, route: Route) -> float | None:
        """See `router.ports.Upstreams`."""
        return self._supervisor.ready_in(ModelId(route.model))

    def waiting_note(self, route: Route) -> str:
        """See `router.ports.Upstreams`."""
        return self._supervisor.phase(ModelId(route.model)) or f"waiting for {route.model}"
