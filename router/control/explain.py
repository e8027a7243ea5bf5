"""`GET /api/explain/{id}`: why a request waited."""

from __future__ import annotations

from typing import Any, TypedDict

from aiohttp import web

from router.control.answers import json_answer
from router.control.deps import ControlDeps
from router.errors import NoExplanationError
from supervisor.view import Explanation


class ExplainedStep(TypedDict):
    """Something that was decided or happened while the request waited."""

    at: float
    """Unix seconds."""
    kind: str
    """`asked`, `waits`, `evict`, `start`, `ready`, `failed`, `refuse` …"""
    text: str
    """In words."""
    data: dict[str, Any]
    """The numbers it was decided on, by kind."""


class Explained(TypedDict):
    """Why a request waited."""

    request: str
    """The `X-Request-Id` of its answer."""
    model: str
    asked: float
    """Unix seconds."""
    waited_seconds: float
    outcome: str
    """`waiting`, `served`, `refused` or `gone` (its client left)."""
    steps: list[ExplainedStep]
    """Oldest first."""


def as_json(found: Explanation) -> Explained:
    """The documented shape."""
    return Explained(
        request=found.request,
        model=found.model,
        asked=found.asked,
        waited_seconds=round(found.waited, 3),
        outcome=found.outcome,
        steps=[
            ExplainedStep(at=step.at, kind=step.kind, text=step.text, data=dict(step.data))
            for step in found.steps
        ],
    )


class Explain:
    """The handler over the fleet's memory."""

    def __init__(self, deps: ControlDeps) -> None:
        self._deps = deps

    def routes(self) -> list[web.RouteDef]:
        """What it serves. A client may choose its request's id, with slashes in it."""
        return [web.get(r"/api/explain/{id:.+}", self.one)]

    async def one(self, request: web.Request) -> web.Response:
        """Why the request of that id waited, in words and numbers."""
        asked = request.match_info["id"]
        found = self._deps.fleet.explain(asked)
        if found is None:
            raise NoExplanationError(
                f"no request {asked[:100]!r} has waited lately: it was served at once, never came, or too "
                "many have waited since; its id is the X-Request-Id of its answer"
            )
        return json_answer(as_json(found))
