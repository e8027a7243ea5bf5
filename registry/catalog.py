"""The catalog: every model that can be asked for, and the way from a name to it.

A catalog is immutable; a reload, a download or news of an endpoint makes another one, which is published by
one assignment. `build_catalog` reads files and belongs in a thread; everything else here is pure and cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from config.schema import EndpointConfig, ModelConfig, Settings, VirtualConfig
from config.vocabulary import EngineName
from registry.adapters import Adapter, read_adapter, served_beside, unfit
from registry.capability import Endpoint
from registry.checkpoint import Checkpoint
from registry.describe import registry_id
from registry.discovery import Candidate, Environment, Notice, discover
from registry.engine import Installation, LaunchSpec, Machine, ModelId, Wire
from registry.engine_choice import ENGINES, choose, launch_specs
from registry.errors import ModelRequiredError, ModelUnusableError, RegistryError, VirtualNameError
from registry.evidence import settle_facts
from registry.fact import Fact
from registry.gate import Allowed, incapable, serves
from registry.hub import hub_cache
from registry.installed import find_installations
from registry.machine import within
from registry.model import EndpointTarget, Facts, Model, SourceKind
from registry.names import FamilyTable, parse_name
from registry.parsers import choose_parsers
from registry.probe import ServedModel
from registry.resolve import MAX_CANDIDATES, Named, NameIndex, build_index, exact_name, resolve_name
from registry.virtual import Virtual, is_auto


@dataclass(frozen=True, slots=True)
class Catalog:
    """All models by id, and everything needed to find one by another name."""

    models: Mapping[ModelId, Model]
    """In the order of precedence: the operator's own first."""
    index: NameIndex
    default_model: ModelId | None = None
    """Served when a request names none: the configured one, else the only one that can be served."""
    notices: tuple[Notice, ...] = ()
    fuzzy: bool = True
    configured_default: str | None = None
    endpoints: tuple[EndpointConfig, ...] = ()
    families: FamilyTable = FamilyTable()
    also: Mapping[str, ModelId] = field(default_factory=dict)
    """Names besides ids and the models' own aliases."""
    registry_ids: Mapping[str, ModelId] = field(default_factory=dict)
    """`<engine>/<id with / as _>` to the first model of that name; looked up whole, never in part."""
    virtual: Mapping[str, VirtualConfig] = field(default_factory=dict)
    """The operator's names for one of several models."""

    def find(self, name: str | None, *, allowed: Allowed | None = None) -> Named | Virtual:
        """What *name* means (None: the default), by the grammar of names.

        Raises ModelRequiredError, ModelNotFoundError, AmbiguousModelError or VirtualNameError. Errors name no
        model that is not *allowed*.
        """
        if name is None:
            if self.default_model is not None:
                return Named(self.default_model)
            if self.configured_default is None:
                usable = (one.id for one in self.models.values() if one.problem is None)
                named = (one for one in usable if allowed is None or allowed(one))
                raise ModelRequiredError(
                    "the request names no model, and no default_model is configured",
                    candidates=tuple(islice(named, MAX_CANDIDATES)),
                )
            name = self.configured_default
        if name in self.models:
            return Named(ModelId(name))
        if name in self.registry_ids:
            return Named(self.registry_ids[name])
        exact = exact_name(name, self.index, allowed=allowed)
        if exact is not None:
            return exact
        if name in self.virtual or is_auto(name):
            return Virtual(name)
        return resolve_name(name, self.index, fuzzy=self.fuzzy, allowed=allowed)

    def resolve(
        self, name: str | None, endpoint: Endpoint | None = None, *, allowed: Allowed | None = None
    ) -> Model:
        """The model that *name* means (None: the default), able to serve *endpoint*.

        An exact id costs one dict lookup. Raises ModelRequiredError, ModelNotFoundError, AmbiguousModelError,
        VirtualNameError, CapabilityMissingError, or the model's own problem (a copy: exceptions keep what
        raised them alive).
        Without *endpoint* only the name is resolved, and a model with a problem is returned like any other.
        Errors name no model that is not *allowed*.
        """
        model = self.models.get(ModelId(name)) if name is not None else None
        if model is None:
            found = self.find(name, allowed=allowed)
            if isinstance(found, Virtual):
                raise VirtualNameError(
                    f"{found.name} is served by one of several models, chosen for each request; name one"
                )
            model = self.models[found.model]
        return model if endpoint is None else self.checked(model, endpoint, allowed=allowed)

    def checked(self, model: Model, endpoint: Endpoint, *, allowed: Allowed | None = None) -> Model:
        """*model*, if it can serve *endpoint*; raises as `resolve` does."""
        if not serves(model, endpoint):
            raise incapable(model, endpoint, self.models.values(), allowed=allowed)
        if model.problem is not None:
            raise type(model.problem)(str(model.problem), candidates=model.problem.candidates)
        return model

    def with_endpoints(self, served: Mapping[str, Sequence[ServedModel]]) -> Catalog:
        """This catalog with the models of running endpoints (by the endpoint's name) instead of those it had.

        A model keeps its own name where nobody here has it, and can always be asked for as `name@endpoint`.
        """
        local = {name: model for name, model in self.models.items() if model.endpoint is None}
        names = {*local, *self.also, *self.virtual, *(alias for m in local.values() for alias in m.aliases)}
        models = dict(local)
        for config in self.endpoints:
            for one in served.get(config.name, ()):
                full = f"{one.id}@{config.name}"
                model_id = ModelId(full if one.id in names else one.id)
                if model_id in models:
                    continue
                names.add(one.id)
                models[model_id] = _endpoint_model(model_id, full, config, one, families=self.families)
        # Usually there is no endpoint, and an index of hundreds of names takes milliseconds.
        return self if models == self.models else self._of(models.values())

    def keeping(self, kept: Mapping[ModelId, Model]) -> Catalog:
        """This catalog with *kept* in place of the models of these ids."""
        return self._of(kept.get(model_id, model) for model_id, model in self.models.items())

    def _of(self, models: Iterable[Model]) -> Catalog:
        return _catalog(
            models,
            also=self.also,
            notices=self.notices,
            fuzzy=self.fuzzy,
            configured_default=self.configured_default,
            endpoints=self.endpoints,
            families=self.families,
            virtual=self.virtual,
        )

    def with_live(self, live: Mapping[ModelId, ServedModel]) -> Catalog:
        """This catalog with what the engines of running models say of them; names stay as they are."""
        models = dict(self.models)
        for model_id, served in live.items():
            model = models.get(model_id)
            if model is not None and model.endpoint is None:
                facts = _local_facts(
                    model.id, model.options, model.checkpoint, families=self.families, served=served
                )
                models[model_id] = replace(model, facts=facts)
        return replace(self, models=MappingProxyType(models))


def build_catalog(settings: Settings, machine: Machine, environment: Environment) -> Catalog:
    """The catalog of this machine under *settings*. Reads files; call it from a thread. Never raises."""
    found = discover(settings, environment)
    engines = {str(name): config for name, config in settings.engines.items()}
    installed = find_installations(engines, environment.engines_dir)
    cache = hub_cache(environment.env)
    # What the file says of one model is in its candidate: a change of it leaves the others as they are.
    shared = settings.model_copy(update={"models": {}})
    builder = _Builder(shared, machine, installed=installed, families=environment.families, cache=cache)
    memory = environment.models
    memory.under((shared, machine, dict(installed)))
    memory.keep_only({candidate.id for candidate in found.candidates})
    models = [
        made
        for one in found.candidates
        for made in memory.models(one.id, _made_from(one), partial(builder.models, one))
    ]
    ids = {model.id for model in models}
    also = {name: ModelId(one.id) for one in found.candidates for name in one.also if name not in ids}
    return _catalog(
        models,
        also=MappingProxyType(also),
        notices=(*found.notices, *builder.notices),
        fuzzy=settings.fuzzy_names,
        configured_default=settings.default_model,
        endpoints=settings.endpoints or (),
        families=environment.families,
        virtual=MappingProxyType(dict(settings.virtual)),
    )


def _made_from(candidate: Candidate) -> object:
    """What a model depends on besides the circumstances: of one with adapters more, so never the same."""
    named = candidate.options is not None and candidate.options.adapters
    return object() if named or candidate.adapters else candidate


def _catalog(
    models: Iterable[Model],
    *,
    also: Mapping[str, ModelId],
    notices: tuple[Notice, ...],
    fuzzy: bool,
    configured_default: str | None,
    endpoints: tuple[EndpointConfig, ...],
    families: FamilyTable,
    virtual: Mapping[str, VirtualConfig],
) -> Catalog:
    by_id = {model.id: model for model in models}
    aliases = {**also, **{alias: model.id for model in by_id.values() for alias in model.aliases}}
    variants = {model.id: names for model in by_id.values() if (names := variants_of(model))}
    index = build_index(by_id, aliases, variants)
    return Catalog(
        models=MappingProxyType(by_id),
        index=index,
        default_model=_default(configured_default, by_id, index),
        notices=notices,
        fuzzy=fuzzy,
        configured_default=configured_default,
        endpoints=endpoints,
        families=families,
        also=also,
        registry_ids=MappingProxyType(
            {registry_id(model): model.id for model in reversed(tuple(by_id.values()))}
        ),
        virtual=virtual,
    )


def variants_of(model: Model) -> frozenset[str]:
    """What may stand behind its name and a colon: variants, and adapters that its instance serves."""
    named = model.options.variants if model.options is not None else {}
    return frozenset((*named, *(adapter.name for adapter in model.adapters)))


def _default(configured: str | None, models: Mapping[ModelId, Model], index: NameIndex) -> ModelId | None:
    if configured is not None:
        if configured in models:
            return ModelId(configured)
        try:
            found = resolve_name(configured, index, fuzzy=False)
        except RegistryError:
            return None
        # A variant, like a virtual name, is looked up for each request.
        return None if found.variant else found.model
    servable = [model.id for model in models.values() if model.problem is None]
    return servable[0] if len(servable) == 1 else None


# -- making models ---------------------------------------------------------------------------------


class _Builder:
    """Turns candidates into models: facts, engine, launch spec."""

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        *,
        installed: Mapping[EngineName, Installation],
        families: FamilyTable,
        cache: Path,
    ) -> None:
        self._cache = cache
        self.notices: list[Notice] = []
        self._settings = settings
        self._defaults = {str(name): config for name, config in settings.engines.items()}
        self._machine = within(machine, settings.memory)
        self._installed = installed
        self._families = families

    def models(self, candidate: Candidate) -> Iterator[Model]:
        """The model, and those of its adapters that are models of their own."""
        options = candidate.options
        named = options.adapters if options is not None else {}
        adapters = [read_adapter(name, source, self._cache) for name, source in named.items()]
        base = self._model(candidate, adapters=tuple(adapters))
        yield base
        for adapter in adapters:
            if adapter not in base.adapters:
                yield self._with_adapter(candidate, base, adapter)
        # One that was only found changes nothing of its base: it gets an instance of its own, when asked for.
        for name, path in candidate.adapters:
            adapter = read_adapter(name, str(path), self._cache)
            problem = adapter.problem or unfit(base.engine, adapter)
            if problem is not None:
                self.notices.append(Notice(f"{base.id}:{name}", problem))
            elif name not in variants_of(base) and name not in named:
                yield self._with_adapter(candidate, base, adapter)

    def _with_adapter(self, candidate: Candidate, base: Model, adapter: Adapter) -> Model:
        """A model of its own for *adapter*: on engines that serve one, else with the problem."""
        said = candidate.options or ModelConfig(source=candidate.source)
        own = {"aliases": (), "variants": {}, "adapters": {}, "preload": False, "pin": False}
        options = said.model_copy(update=own)
        name = f"{base.id}:{adapter.name}"
        alone = replace(candidate, id=name, options=options, also=(), adapters=())
        model = self._model(alone, adapter=adapter)
        problem = adapter.problem or unfit(base.engine, adapter)
        if problem is None or model.problem is not None:
            return model
        error = ModelUnusableError(f"{name}: {problem}; {base.id} is served without it")
        return replace(model, spec=None, problem=error)

    def _model(
        self, candidate: Candidate, *, adapters: tuple[Adapter, ...] = (), adapter: Adapter | None = None
    ) -> Model:
        options = candidate.options
        said = options or ModelConfig(source=candidate.source or "?")
        bare = Model(
            id=ModelId(candidate.id),
            engine=EngineName.COMMAND,
            source=candidate.source,
            source_kind=candidate.kind,
            path=candidate.path,
            aliases=said.aliases,
            facts=_local_facts(candidate.id, options, candidate.checkpoint, families=self._families),
            checkpoint=candidate.checkpoint,
            options=options,
            adapter=adapter,
            ttl=self._settings.ttl if said.ttl is None else said.ttl,
            ttl_max=self._settings.ttl_max if said.ttl_max is None else said.ttl_max,
            pin=said.pin,
            preload=said.preload,
            concurrency=said.concurrency,
            priority=said.priority,
            group=said.group or "",
            exclusive=said.exclusive,
            created=candidate.created,
        )
        choice = choose(bare, self._machine, self._installed)
        engine = ENGINES[choice.engine]
        beside = served_beside(choice.engine, adapters)
        wire = replace(engine.wire(bare), first_byte_timeout=said.first_byte_timeout)
        chosen = replace(bare, engine=choice.engine, wire=wire, adapters=beside)
        problem = _unusable(candidate) or choice.problem
        if problem is not None or choice.installation is None:
            return replace(chosen, problem=problem)
        effective = replace(chosen, options=self._with_engine_defaults(said, choice.engine))
        calls = choose_parsers(effective, choice.installation).filter
        if calls is not None:
            # vLLM refuses requests with tools when it was started without a parser.
            wire = replace(chosen.wire, calls=calls, hides_tools=choice.engine is EngineName.VLLM)
            chosen = replace(chosen, wire=wire)
        specs = launch_specs(engine, effective, choice.installation, self._machine)
        first, *others = (self._timed(spec, said) for spec in specs)
        return replace(chosen, spec=first, elsewhere=tuple(others))

    def _with_engine_defaults(self, options: ModelConfig, engine: EngineName) -> ModelConfig:
        defaults = self._defaults.get(engine.value)
        if defaults is None or not (defaults.args or defaults.env):
            return options
        return options.model_copy(
            update={"args": defaults.args + options.args, "env": {**defaults.env, **options.env}}
        )

    def _timed(self, spec: LaunchSpec, options: ModelConfig) -> LaunchSpec:
        start = self._settings.start
        return replace(
            spec,
            stop=replace(spec.stop, grace_seconds=start.stop_grace),
            stall_timeout=start.stall_timeout,
            start_timeout=start.start_timeout if options.start_timeout is None else options.start_timeout,
        )


def _local_facts(
    model_id: str,
    options: ModelConfig | None,
    checkpoint: Checkpoint | None,
    *,
    families: FamilyTable,
    served: ServedModel | None = None,
) -> Facts:
    """Of a model of ours: its source's name says more than the one the operator gave it."""
    name = parse_name(model_id, families)
    if options is not None and options.source is not None:
        by_source = parse_name(options.source, families)
        if by_source.capabilities is not None or name.capabilities is None:
            name = by_source
    return settle_facts(
        model_id, name, checkpoint=checkpoint, options=options, served=served, families=families
    )


def _unusable(candidate: Candidate) -> ModelUnusableError | None:
    if candidate.problem is None:
        return None
    remedy = ""
    if candidate.problem.startswith("partial download") and candidate.source.count("/") == 1:
        remedy = f"; run `hf download {candidate.source}`"
    return ModelUnusableError(f"{candidate.id}: {candidate.problem}{remedy}")


def _endpoint_model(
    model_id: ModelId, full: str, config: EndpointConfig, one: ServedModel, *, families: FamilyTable
) -> Model:
    name = parse_name(one.id, families)
    if name.capabilities is None and one.root is not None:
        name = parse_name(one.root, families)
    return Model(
        id=model_id,
        engine=EngineName.ENDPOINT,
        source=config.url,
        source_kind=SourceKind.ENDPOINT,
        aliases=(full,) if full != model_id else (),
        facts=settle_facts(model_id, name, served=one),
        ttl=0.0,
        # Nobody told us whether its streams end with `[DONE]`.
        wire=Wire(one.id, frozenset({one.id}), sends_done=False, own_keep_alive=True),
        endpoint=EndpointTarget(config.name, config.url, config.key_env),
        created=one.created,
    )


# -- showing models --------------------------------------------------------------------------------


def openai_entry(model: Model, state: str) -> dict[str, Any]:
    """*model* as an entry of `/v1/models`: OpenAI's keys, then ours. *state* is its instance's, in words."""
    facts = model.facts
    entry: dict[str, Any] = {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": facts.provider.value or "modelyard",
        "capabilities": sorted(facts.capabilities.value or ()),
        "context_length": facts.context_length.value,
        "engine": model.engine.value,
        "state": state,
        "size_bytes": facts.size_bytes.value,
        "parameters": facts.parameters.value,
        "active_parameters": facts.active_parameters.value,
        "quantization": facts.quantization.value,
        "family": facts.family.value,
        "architecture": facts.architecture.value,
        "aliases": list(model.aliases),
        "variants": sorted(variants_of(model)),
        "source": model.source,
        "source_kind": model.source_kind.value,
        "sources": _sources(facts),
    }
    if model.endpoint is not None:
        entry["endpoint"] = model.endpoint.name
    if model.problem is not None:
        entry["problem"] = {"code": model.problem.code, "message": str(model.problem)}
    return entry


VIRTUAL = "virtual"
"""Engine and state of a virtual name's entry."""


def virtual_entry(name: str, config: VirtualConfig) -> dict[str, Any]:
    """An operator's virtual name as an entry of `/v1/models`, in the shape of a model's."""
    unknown = dict.fromkeys(
        ("context_length", "size_bytes", "parameters", "active_parameters", "quantization", "family",
         "architecture")
    )  # fmt: skip
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "modelyard",
        "capabilities": [],
        "engine": VIRTUAL,
        "state": VIRTUAL,
        **unknown,
        "aliases": [],
        "variants": [],
        "source": ", ".join(config.models),
        "source_kind": SourceKind.CONFIG.value,
        "sources": {},
    }


_SHOWN = ("capabilities", "context_length", "parameters", "quantization", "size_bytes")


def _sources(facts: Facts) -> dict[str, Any]:
    """Who said what, and who said otherwise."""
    shown: dict[str, Any] = {}
    for key in _SHOWN:
        fact: Fact[Any] = getattr(facts, key)
        if fact.known:
            others = [{"value": _plain(value), "source": source} for value, source in fact.others]
            shown[key] = {"source": fact.source, **({"others": others} if others else {})}
    return shown


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else value
