"""Leases for the front: on instances of the supervisor and on running servers, with one face."""

from __future__ import annotations

from typing import Any

from registry.engine import ModelId
from registry.model import Model
from router.endpoints import Endpoints
from router.ports import Lease, Route
from supervisor.fleet import Supervisor


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

    async def lease(self, route: Route, *, timeout: float | None = None, request: str = "") -> Lease:
        """See `router.ports.Upstreams`."""
        model = route.handle
        assert isinstance(model, Model), "routes are made by CatalogDirectory"
        if model.endpoint is not None:
            return self._endpoints.lease(model)
        return await self._supervisor.lease(model.id, timeout=timeout, request=request)

    def waiting_note(self, route: Route) -> str:
        """See `router.ports.Upstreams`."""
        return self._supervisor.phase(ModelId(route.model)) or f"waiting for {route.model}"
