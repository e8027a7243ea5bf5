"""Leases for the front: on instances of the supervisor and on running servers, with one face."""

from __future__ import annotations

from typing import Any

from registry.capability import Endpoint
from registry.catalog import Catalog
from registry.engine import ModelId
from registry.model import Model
from router.endpoints import Endpoints
from router.ports import Lease, Route
from supervisor.fleet import Supervisor


class CatalogDirectory:
    """`router.ports.Directory` over the catalog of the moment; a reload replaces it in one assignment."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._routes: dict[ModelId, Route] = {}
        self.publish(catalog)

    def publish(self, catalog: Catalog) -> None:
        """Route by *catalog* from now on."""
        self._routes = {
            model.id: Route(model=model.id, handle=model, wire=model.wire)
            for model in catalog.models.values()
        }
        self.catalog = catalog

    def route(self, name: str | None, endpoint: Endpoint) -> Route:
        """See `router.ports.Directory`; raises the model's own problem when it cannot be served."""
        return self._routes[self.catalog.resolve(name, endpoint).id]


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

    async def lease(self, route: Route, *, timeout: float | None = None) -> Lease:
        """See `router.ports.Upstreams`."""
        model = route.handle
        assert isinstance(model, Model), "routes are made by CatalogDirectory"
        if model.endpoint is not None:
            return self._endpoints.lease(model)
        return await self._supervisor.lease(model.id, timeout=timeout)

    def waiting_note(self, route: Route) -> str:
        """See `router.ports.Upstreams`."""
        return self._supervisor.phase(ModelId(route.model)) or f"waiting for {route.model}"
