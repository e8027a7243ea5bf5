"""`GET /v1/models` and `/v1/models/{id}` in OpenAI's shape, with and without the version prefix."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from aiohttp import web

from registry.catalog import virtual_entry
from registry.describe import dossier
from router.control.answers import json_answer
from router.control.deps import ControlDeps
from router.control.door import caller_of
from router.control.status import ProblemStatus, state_of
from router.refused import RefusedError


class ModelEntry(TypedDict):
    """One model: OpenAI's keys, then ours. `registry.catalog.openai_entry` makes it."""

    id: str
    object: str
    created: int
    """Unix seconds."""
    owned_by: str
    capabilities: list[str]
    context_length: int | None
    engine: str
    state: str
    """A state of the lifecycle, or `unusable`, `endpoint`, `virtual`."""
    size_bytes: int | None
    parameters: int | None
    active_parameters: int | None
    """Of a mixture of experts: those that a token passes."""
    quantization: str | None
    family: str | None
    architecture: str | None
    aliases: list[str]
    variants: list[str]
    """Sets of parameters, asked for as `id:variant`."""
    source: str
    source_kind: str
    sources: dict[str, Any]
    """Per key: who said it, and in `others` who said otherwise."""
    endpoint: NotRequired[str]
    """Name of the configured server that has it."""
    problem: NotRequired[ProblemStatus]
    """Why it cannot be served here."""


class ModelList(TypedDict):
    """Everything that can be asked for, in OpenAI's shape."""

    object: str
    data: list[ModelEntry]


class Models:
    """The model list. Names in paths may be ids, aliases or anything else the registry resolves."""

    def __init__(self, deps: ControlDeps) -> None:
        self._deps = deps

    def routes(self) -> list[web.RouteDef]:
        """What it serves."""
        return [
            web.get(prefix + path, handler)
            for prefix in ("/v1", "")
            for path, handler in (("/models", self.list), (r"/models/{id:.+}", self.one))
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Everything that the caller can ask for, loaded or not."""
        deps, holder = self._deps, caller_of(request).holder
        instances = {instance.model: instance for instance in deps.fleet.view().instances}
        data: list[dict[str, Any]] = [
            dict(deps.entry(model, state_of(model, instances.get(model.id))))
            for model in deps.catalog().models.values()
            if holder is None or holder.may_use(model.id)
        ]
        data += [
            virtual_entry(name, config)
            for name, config in deps.catalog().virtual.items()
            if holder is None or any(holder.may_use(one) for one in (name, *config.models))
        ]
        return json_answer({"object": "list", "data": data})

    async def one(self, request: web.Request) -> web.Response:
        """One entry of the list, with every fact, who says it and who says otherwise."""
        name, holder = request.match_info["id"], caller_of(request).holder
        virtual = self._deps.catalog().virtual.get(name)
        if virtual is not None:
            return json_answer(virtual_entry(name, virtual))
        model = self._deps.resolve(name)
        objection = None if holder is None else holder.objects_to(model.id)
        if objection is not None:
            raise RefusedError(objection)
        entry = self._deps.entry(model, state_of(model, self._deps.fleet.instance(model.id)))
        return json_answer({**entry, **dossier(model)})
