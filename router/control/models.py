"""`GET /v1/models` and `/v1/models/{id}` in OpenAI's shape, with and without the version prefix."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from router.control.answers import json_answer
from router.control.deps import ControlDeps
from router.control.status import state_of


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

    async def list(self, _: web.Request) -> web.Response:
        """Everything that can be asked for, loaded or not."""
        deps = self._deps
        instances = {instance.model: instance for instance in deps.fleet.view().instances}
        data: list[dict[str, Any]] = [
            dict(deps.entry(model, state_of(model, instances.get(model.id))))
            for model in deps.catalog().models.values()
        ]
        return json_answer({"object": "list", "data": data})

    async def one(self, request: web.Request) -> web.Response:
        """One entry of the list."""
        model = self._deps.resolve(request.match_info["id"])
        return json_answer(self._deps.entry(model, state_of(model, self._deps.fleet.instance(model.id))))
