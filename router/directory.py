"""Names to routes for the front: `router.ports.Directory` over the catalog of the moment."""

from __future__ import annotations

from collections.abc import Iterable

from registry.capability import Endpoint, Needs
from registry.catalog import Catalog
from registry.engine import ModelId
from registry.gate import lacking, longest_answer, unmet
from registry.model import Model
from router.needs import NeedsReader
from router.ports import Holder, Route


class CatalogDirectory:
    """`router.ports.Directory`. A reload replaces the catalog in one assignment."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._routes: dict[ModelId, Route] = {}
        self.publish(catalog)

    def publish(self, catalog: Catalog) -> None:
        """Route by *catalog* from now on."""
        models = catalog.models.values()
        self._routes = {model.id: _route(model, models) for model in models}
        self.catalog = catalog

    def route(self, name: str | None, endpoint: Endpoint, holder: Holder | None = None) -> Route:
        """See `router.ports.Directory`; raises the model's own problem when it cannot be served."""
        allowed = None if holder is None else holder.may_use
        return self._routes[self.catalog.resolve(name, endpoint, allowed=allowed).id]


def _route(model: Model, models: Iterable[Model]) -> Route:
    return Route(model=model.id, handle=model, wire=model.wire, check=_check(model, models))


class ModelCheck:
    """`router.ports.RequestCheck` of one model."""

    def __init__(self, model: Model, models: Iterable[Model]) -> None:
        """*models* are those that could serve instead."""
        self._model = model
        self._models = models
        self.read = NeedsReader(lacking(model), tokens=longest_answer(model) is not None)

    def __call__(self, needs: Needs, endpoint: Endpoint, holder: Holder | None) -> None:
        """See `router.ports.RequestCheck`."""
        allowed = None if holder is None else holder.may_use
        error = unmet(self._model, needs, endpoint, self._models, allowed=allowed)
        if error is not None:
            raise error


def _check(model: Model, models: Iterable[Model]) -> ModelCheck | None:
    """None for a model of which nothing is certain, so that its requests are not looked into."""
    wanted = model.options is None or model.options.check_requests
    certain = lacking(model) or longest_answer(model) is not None
    return ModelCheck(model, models) if wanted and certain else None
