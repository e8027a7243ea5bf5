"""Names to routes for the front: `router.ports.Directory` over the catalog of the moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from config.schema import RequestConfig, VirtualConfig
from registry.capability import ENDPOINTS, NO_NEEDS, UPSTREAM, Capability, Endpoint, Needs
from registry.catalog import Catalog
from registry.engine import ModelId
from registry.errors import (
    CapabilityMissingError,
    ModelNotFoundError,
    NothingLoadedError,
    RegistryError,
)
from registry.gate import Allowed, able, lacking, longest_answer, meets, unmet
from registry.model import Model
from registry.resolve import Named, longest_name, name_and_rest
from registry.virtual import Standing, Virtual, Wish, choose, fits, in_order, is_auto, parse_wish
from router.edits import Edits, make_edits
from router.needs import EVERYTHING, NeedsReader
from router.ports import Choice, Chosen, Holder, Route

MOST_TRIED = 3
"""Models of `auto` that are asked for one request: each may cost a start."""

MOST_WISHES = 256
"""Remembered; each takes a few microseconds per model to find out anew."""

ANY_REASON = frozenset({"failure", "overload"})

StandingOf = Callable[[Model], Standing]


def _unknown_standing(_: Model) -> Standing:
    return Standing()


Routes = tuple[Mapping[str, Route], Mapping[Named, Route]]
"""Of models, and of their variants and adapters."""


def routes_of(catalog: Catalog) -> Routes:
    """Where each name of *catalog* leads. Takes milliseconds for hundreds of models; any thread may do it."""
    models = catalog.models.values()
    routes: dict[str, Route] = {model.id: _route(model, models) for model in models}
    variants = {
        Named(model.id, name): _route(model, models, variant)
        for model in models
        for name, variant in (model.options.variants if model.options else {}).items()
    } | {
        Named(model.id, adapter.name): _adapted(routes[model.id], adapter.name)
        for model in models
        for adapter in model.adapters
    }
    return routes, variants


class CatalogDirectory:
    """`router.ports.Directory`. A reload replaces the catalog in one assignment."""

    def __init__(self, catalog: Catalog, standing: StandingOf = _unknown_standing) -> None:
        """*standing* says how a model stands at this moment; virtual names choose by it."""
        self.catalog = catalog
        self.standing = standing
        self._routes: Mapping[str, Route] = {}
        self._variants: Mapping[Named, Route] = {}
        self._passed: dict[tuple[str | None, str], Route] = {}
        """By id and path: what was found to be served."""
        self._fitting: dict[tuple[Wish, str, frozenset[Capability]], tuple[Model, ...]] = {}
        """By what is asked for: models that have it, which changes only with the catalog."""
        self.publish(catalog)

    def publish(self, catalog: Catalog, routes: Routes | None = None) -> None:
        """Route by *catalog* from now on; *routes* are `routes_of` it, where they were made already."""
        self._routes, self._variants = routes_of(catalog) if routes is None else routes
        self._fitting.clear()
        self._passed.clear()
        self.catalog = catalog

    def route(self, name: str | None, endpoint: Endpoint, holder: Holder | None = None) -> Route | Choice:
        """See `router.ports.Directory`; raises the model's own problem when it cannot be served."""
        known = self._passed.get((name, endpoint.path))
        if known is not None:
            return known
        allowed = None if holder is None else holder.may_use
        catalog, route = self.catalog, None if name is None else self._routes.get(name)
        if route is None:
            found = catalog.find(name, allowed=allowed)
            if isinstance(found, Virtual):
                return self._choice(found.name)
            route = self.named(found)
        catalog.checked(catalog.models[ModelId(route.model)], endpoint, allowed=allowed)
        if name == route.model:
            self._passed[name, endpoint.path] = route
        return route

    def below(self, path: str, holder: Holder | None = None) -> tuple[Route, str]:
        """See `router.ports.Directory`; raises the model's own problem when it cannot be served."""
        allowed = None if holder is None else holder.may_use
        catalog = self.catalog
        found = longest_name(path, catalog.index)
        if found is not None:
            model, rest = catalog.models[found[0].model], found[1]
        else:
            model, rest = self._guessed(path, allowed)
        return self._routes[catalog.checked(model, UPSTREAM, allowed=allowed).id], rest

    def _guessed(self, path: str, allowed: Allowed | None) -> tuple[Model, str]:
        """The same for a name that no model has as it stands: the part behind its slash, and no partial one,
        for `org` would be one of `org/model`, and what was meant as a name would be asked for as a path."""
        catalog = replace(self.catalog, fuzzy=False)
        problem: ModelNotFoundError | None = None
        for name, rest in name_and_rest(path, parts=2):
            try:
                return catalog.resolve(name, allowed=allowed), rest
            except ModelNotFoundError as error:
                if problem is None or (error.candidates and not problem.candidates):
                    problem = error
        assert problem is not None  # a path has at least one part
        raise problem

    def model(self, name: str | None) -> Model:
        """The model that *name* means (None: the default); of a virtual name, the one a chat would get now.

        Where none of those chats, the one that any other request would get. Raises what `route` raises, but
        returns a model with a problem like any other.
        """
        found = self.catalog.find(name)
        if not isinstance(found, Virtual):
            return self.catalog.models[found.model]
        choice = self._choice(found.name)
        try:
            chosen = choice(NO_NEEDS, ENDPOINTS["/v1/chat/completions"], None)
        except CapabilityMissingError:
            chosen = choice(NO_NEEDS, ENDPOINTS["/v1/tokenize"], None)
        return self.catalog.models[ModelId(chosen.routes[0].model)]

    def named(self, found: Named) -> Route:
        """The route of a model or of a variant of it."""
        return self._variants[found] if found.variant else self._routes[found.model]

    def ordered(
        self, wish: Wish, endpoint: Endpoint, needs: Needs, allowed: Allowed | None
    ) -> tuple[Model, ...]:
        """Models for *wish*, best first."""
        asked = (wish, endpoint.path, needs.capabilities)
        fitting = self._fitting.get(asked)
        if fitting is None:
            models, content = self.catalog.models.values(), Needs(needs.capabilities)
            fitting = tuple(model for model in models if fits(model, wish, endpoint, content))
            if len(self._fitting) >= MOST_WISHES:
                self._fitting.clear()
            self._fitting[asked] = fitting
        if needs.tokens is not None:
            # Not remembered: clients ask for any number.
            fitting = tuple(model for model in fitting if meets(model, needs))
        return choose(fitting, wish, endpoint, standing=self.standing, allowed=allowed)

    def _choice(self, name: str) -> Choice:
        if is_auto(name):
            return AutoChoice(self, name, parse_wish(name))
        return OrderedChoice(self, name, self.catalog.virtual[name])


class AutoChoice:
    """`auto` and `auto:…`: by capability, among all models."""

    read = staticmethod(EVERYTHING)

    def __init__(self, directory: CatalogDirectory, name: str, wish: Wish) -> None:
        self._directory = directory
        self._name = name
        self._wish = wish

    def __call__(self, needs: Needs, endpoint: Endpoint, holder: Holder | None) -> Chosen:
        """See `router.ports.Choice`."""
        directory, allowed = self._directory, None if holder is None else holder.may_use
        found = directory.ordered(self._wish, endpoint, needs, allowed)
        if not found:
            raise self._nobody(needs, endpoint, allowed)
        routes = tuple(directory.named(Named(model.id)) for model in found[:MOST_TRIED])
        return Chosen(routes, ANY_REASON)

    def _nobody(self, needs: Needs, endpoint: Endpoint, allowed: Allowed | None) -> RegistryError:
        wish, models = self._wish, self._directory.catalog.models.values()
        wanted: list[str] = sorted(wish.capabilities | needs.capabilities)
        if wish.context:
            wanted.append(f"a context of {wish.context} tokens")
        if needs.tokens is not None:
            wanted.append(f"room for an answer of {needs.tokens} tokens")
        what = f"that serves {endpoint.path}" + (f" with {', '.join(wanted)}" if wanted else "")
        if wish.loaded:
            return NothingLoadedError(f"{self._name}: no model {what} is loaded now; `auto` loads one")
        names = able(models, endpoint, allowed=allowed)
        instead = f"; those that serve {endpoint.path}: {', '.join(names)}" if names else ""
        return CapabilityMissingError(
            f"{self._name}: there is no model here {what}{instead}", candidates=names
        )


class OrderedChoice:
    """An operator's virtual name: the first of its models that can."""

    read = staticmethod(EVERYTHING)

    def __init__(self, directory: CatalogDirectory, name: str, config: VirtualConfig) -> None:
        self._directory = directory
        self._name = name
        self._config = config

    def __call__(self, needs: Needs, endpoint: Endpoint, holder: Holder | None) -> Chosen:
        """See `router.ports.Choice`."""
        routes: dict[ModelId, Route] = {}
        reasons: list[RegistryError] = []
        for name in self._config.models:
            try:
                self._add(name, routes, needs, endpoint, holder)
            except RegistryError as error:
                reasons.append(error)
        if not routes:
            raise self._nobody(reasons, holder)
        models = self._directory.catalog.models
        ordered = in_order(
            (models[model] for model in routes),
            standing=self._directory.standing,
            prefer_warm=self._config.prefer == "warm",
        )
        return Chosen(tuple(routes[model.id] for model in ordered), frozenset(self._config.fallback))

    def _allowed(self, holder: Holder | None) -> Allowed | None:
        """A key that may use the virtual name may use what it stands for."""
        return None if holder is None or holder.may_use(self._name) else holder.may_use

    def _add(
        self,
        name: str,
        routes: dict[ModelId, Route],
        needs: Needs,
        endpoint: Endpoint,
        holder: Holder | None,
    ) -> None:
        """Add what *name* stands for, each model once; raises why it cannot serve."""
        directory, allowed = self._directory, self._allowed(holder)
        catalog = directory.catalog
        found = catalog.find(name, allowed=allowed)
        if isinstance(found, Virtual):
            if is_auto(found.name):
                for model in directory.ordered(parse_wish(found.name), endpoint, needs, allowed)[:MOST_TRIED]:
                    routes.setdefault(model.id, directory.named(Named(model.id)))
            return
        if allowed is not None and not allowed(found.model):
            return
        catalog.checked(catalog.models[found.model], endpoint, allowed=allowed)
        route = directory.named(found)
        if route.check is not None and needs is not NO_NEEDS:
            route.check(needs, endpoint, holder)
        routes.setdefault(found.model, route)

    def _nobody(self, reasons: list[RegistryError], holder: Holder | None) -> RegistryError:
        if not reasons:
            whose = "" if holder is None else f" that the key {holder.key} may use"
            return CapabilityMissingError(f"{self._name} stands for no model{whose} that can serve this")
        why = "; ".join(str(error) for error in reasons)
        return type(reasons[0])(f"{self._name}: none of its models can serve this: {why}")


def _route(model: Model, models: Iterable[Model], variant: RequestConfig | None = None) -> Route:
    return Route(
        model=model.id,
        handle=model,
        wire=model.wire,
        check=_check(model, models),
        edits=_edits(model, variant),
    )


def _adapted(route: Route, adapter: str) -> Route:
    """*route* for an adapter that its server knows as a model of its own."""
    name = f"{route.model}:{adapter}"
    return replace(route, wire=replace(route.wire, served_name=name, accepted_names=frozenset({name})))


def _edits(model: Model, variant: RequestConfig | None) -> Edits | None:
    """The operator's changes: the model's, and over them the variant's."""
    whole = model.options.request if model.options is not None else RequestConfig()
    own = variant or RequestConfig()
    if not any((whole.set, whole.default, whole.strip, own.set, own.default, own.strip)):
        return None
    return make_edits((*whole.strip, *own.strip), {**whole.set, **own.set}, {**whole.default, **own.default})


class ModelCheck:
    """`router.ports.RequestCheck` of one model."""

    def __init__(self, model: Model, models: Iterable[Model]) -> None:
        """*models* are those that could serve instead."""
        self._model = model
        self._models = models
        self.read = NeedsReader(lacking(model), longest=longest_answer(model))

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
