"""POST /api/restart: a new process takes over, and no request is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypedDict

import structlog
from aiohttp import web

from router.control.answers import json_answer, refused
from router.control.deps import ControlDeps
from router.control.door import caller_of
from router.handover import HandOverError
from router.ports import Refusal

log = structlog.get_logger("modelyard.control")


class Restarted(TypedDict):
    """What has taken over."""

    status: str
    pid: int
    """The new daemon's process."""
    was: int
    """The old one's, which serves what is open to its end."""


class Restart:
    """The one route."""

    def __init__(self, deps: ControlDeps) -> None:
        self._deps = deps

    def routes(self) -> list[web.RouteDef]:
        """What it serves."""
        return [web.post("/api/restart", self.restart)]

    async def restart(self, request: web.Request) -> web.Response:
        """Answered by the daemon that leaves, when the new one serves. A caller that leaves stops nothing."""
        if self._deps.hand_over is None:
            message = "this daemon cannot hand over: stop it and start it again"
            return refused(Refusal(501, "handover_impossible", message, "server_error"))
        log.info("restart_asked", client=caller_of(request).client)
        found = await asyncio.shield(self._deps.spawn(self._try(self._deps.hand_over), name="hand over"))
        if isinstance(found, HandOverError):
            return refused(found.refusal)
        return json_answer(Restarted(status="handed_over", pid=found, was=os.getpid()))

    @staticmethod
    async def _try(hand_over: Callable[[], Coroutine[Any, Any, int]]) -> int | HandOverError:
        try:
            return await hand_over()
        except HandOverError as error:
            return error
