"""Leases for the front: on instances of the supervisor and on running servers, with one face."""

from __future__ import annotations

from typing import Any

from registry.engine import ModelId
from registry.model import Model
from registry.virtual import Standing, Warmth
from router.endpoints import Endpoints
from router.handover import Ask, Successor
from router.ports import Lease, Route, Upstreams
from supervisor.errors import HandedOverError
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
        self._lease_now = supervisor.pool.lease_now
        self._endpoints = endpoints
        self.after: Upstreams | None = None
        """Set when another daemon takes over: whoever waits here is sent there."""

    def lease_now(self, route: Route) -> Lease | None:
        """See `router.ports.Upstreams`."""
        model: Any = route.handle
        if model.endpoint is not None:
            return self._endpoints.lease(model)
        return self._lease_now(model.id)

    def lease_of(self, route: Route, generation: int) -> Lease | None:
        """See `router.ports.Upstreams`."""
        model = route.handle
        assert isinstance(model, Model), "routes are made by CatalogDirectory"
        if model.endpoint is not None:
            return self._endpoints.lease(model)
        return self._supervisor.pool.lease_of(model.id, generation)

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
        try:
            return await self._supervisor.lease(model.id, timeout=timeout, request=request, priority=priority)
        except HandedOverError:
            assert self.after is not None, "only who hands over refuses like this"
            return await self.after.lease(route, timeout=timeout, request=request, priority=priority)

    def ready_in(self, route: Route) -> float | None:
        """See `router.ports.Upstreams`."""
        return self._supervisor.ready_in(ModelId(route.model))

    def waiting_note(self, route: Route) -> str:
        """See `router.ports.Upstreams`."""
        return self._supervisor.phase(ModelId(route.model)) or f"waiting for {route.model}"


class RetiredUpstreams:
    """`router.ports.Upstreams` of a daemon that has handed over: its successor keeps the book of leases."""

    def __init__(self, successor: Successor, endpoints: Endpoints) -> None:
        self._successor = successor
        self._endpoints = endpoints

    def lease_now(self, route: Route) -> Lease | None:
        """On running servers only: the successor has to be asked for the others."""
        model: Any = route.handle
        return self._endpoints.lease(model) if model.endpoint is not None else None

    def lease_of(self, route: Route, generation: int) -> Lease | None:
        """On running servers only: the book of responses is not handed over."""
        return self.lease_now(route)

    async def lease(
        self, route: Route, *, timeout: float | None = None, request: str = "", priority: int = 0
    ) -> Lease:
        """See `router.ports.Upstreams`."""
        found = self.lease_now(route)
        return found or await self._successor.lease(Ask(ModelId(route.model), timeout, request, priority))

    def ready_in(self, route: Route) -> float | None:
        """See `router.ports.Upstreams`; only the successor knows."""
        return None

    def waiting_note(self, route: Route) -> str:
        """See `router.ports.Upstreams`."""
        return f"waiting for {route.model}"
