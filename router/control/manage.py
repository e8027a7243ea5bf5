"""The management API below `/api/models`: look at instances, load, unload, read an engine's log."""

from __future__ import annotations

import asyncio
import math
import os
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from config.schema import parse_duration
from registry.engine import ModelId
from registry.model import Model
from router.control.answers import flag, json_answer, number
from router.control.deps import ControlDeps
from router.control.door import caller_of
from router.control.status import ModelStatus, model_status
from router.errors import BadQueryError, NoLogError, NotOursError
from supervisor.errors import SupervisorError
from supervisor.lifecycle import State

log = structlog.get_logger("modelyard.control")

LOG_BYTES: Final = 256 * 1024
"""Most that is read of a log: a screenful is 10 KB, a traceback of nested workers 100 KB."""
LOG_LINES: Final = 10_000

_DOWN_AFTER_CRASH: Final = frozenset({State.BACKOFF, State.FAILED})


class Manage:
    """The management API. Errors are raised as what they are; the app turns them into answers."""

    def __init__(self, deps: ControlDeps) -> None:
        self._deps = deps
        self._loading: set[ModelId] = set()

    def routes(self) -> list[web.RouteDef]:
        """What it serves. Ids contain slashes, so the verb is the last segment."""
        return [
            web.get("/api/models", self.list),
            web.get(r"/api/models/{id:.+}/logs", self.logs),
            web.get(r"/api/models/{id:.+(?<!/load)(?<!/unload)(?<!/logs)}", self.one),
            web.post(r"/api/models/{id:.+}/load", self.load),
            web.post(r"/api/models/{id:.+}/unload", self.unload),
        ]

    async def list(self, _: web.Request) -> web.Response:
        """Every model with its instance."""
        instances = {instance.model: instance for instance in self._deps.fleet.view().instances}
        requests_of = self._deps.metrics.requests_of
        return json_answer(
            {
                "models": [
                    model_status(model, instances.get(model.id), requests=requests_of(model.id))
                    for _, model in sorted(self._deps.catalog().models.items())
                ]
            }
        )

    async def one(self, request: web.Request) -> web.Response:
        """One of them."""
        return json_answer(self._status(self._model(request)))

    async def load(self, request: web.Request) -> web.Response:
        """Start the model and answer when it is ready; with `wait=0` answer 202 at once.

        `retry=1` first clears BACKOFF and FAILED: for an operator who has mended what was broken. `timeout`
        bounds the wait. A caller that leaves gives up its wait, not the start.
        """
        model = self._ours(request)
        wait, timeout = flag(request, "wait", default=True), _timeout(request)
        retry = flag(request, "retry")
        log.info("model_load_asked", model=model.id, client=caller_of(request).client, retry=retry)
        if retry:
            await self._clear(model.id)
        if wait:
            await self._deps.fleet.load(model.id, timeout=timeout)
            return json_answer(self._status(model))
        if model.id not in self._loading:
            self._loading.add(model.id)
            self._deps.spawn(self._load_unattended(model.id, timeout), name=f"load {model.id}")
        return json_answer(self._status(model), status=202)

    async def unload(self, request: web.Request) -> web.Response:
        """Stop the model when its requests are done; `force=1` cuts them; `wait=0` answers 202 at once."""
        model = self._ours(request)
        force, wait = flag(request, "force"), flag(request, "wait", default=True)
        log.info("model_unload_asked", model=model.id, client=caller_of(request).client, force=force)
        if wait:
            await self._deps.fleet.unload(model.id, force=force)
            return json_answer(self._status(model))
        self._deps.spawn(self._unload_unattended(model.id, force=force), name=f"unload {model.id}")
        return json_answer(self._status(model), status=202)

    async def logs(self, request: web.Request) -> web.Response:
        """The last `tail` lines of the engine's current log, as text or with `format=json` as a list."""
        model = self._ours(request)
        lines = number(request, "tail", default=200, most=LOG_LINES)
        instance = self._deps.fleet.instance(model.id)
        if instance is None or instance.log is None:
            raise NoLogError(f"{model.id} has not been started yet, so there is no log: load it first")
        try:
            text = await asyncio.to_thread(read_tail, Path(instance.log), lines=lines)
        except FileNotFoundError:
            raise NoLogError(f"the log of {model.id} is gone: {instance.log} was removed") from None
        if request.query.get("format") == "json":
            return json_answer({"model": model.id, "log": instance.log, "lines": text.splitlines()})
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    # -- inside ------------------------------------------------------------------------------------

    def _model(self, request: web.Request) -> Model:
        return self._deps.resolve(request.match_info["id"])

    def _ours(self, request: web.Request) -> Model:
        """The model named by the path, if the supervisor owns an instance of it."""
        model = self._model(request)
        if model.problem is not None:
            raise model.problem
        if model.endpoint is not None or self._deps.fleet.instance(model.id) is None:
            where = model.source if model.endpoint is None else model.endpoint.url
            raise NotOursError(
                f"{model.id} is served by {where}, which modelyard neither starts nor stops: "
                "use that server's own tools"
            )
        return model

    def _status(self, model: Model) -> ModelStatus:
        requests = self._deps.metrics.requests_of(model.id)
        return model_status(model, self._deps.fleet.instance(model.id), requests=requests)

    async def _clear(self, model: ModelId) -> None:
        instance = self._deps.fleet.instance(model)
        if instance is not None and instance.state in _DOWN_AFTER_CRASH:
            await self._deps.fleet.unload(model)

    async def _load_unattended(self, model: ModelId, timeout: float | None) -> None:
        try:
            await self._deps.fleet.load(model, timeout=timeout)
        except SupervisorError as error:
            # Nobody waits for the answer; the failure is in the instance's last_error as well.
            log.info("model_load_refused", model=model, code=error.code, error=str(error))
        finally:
            self._loading.discard(model)

    async def _unload_unattended(self, model: ModelId, *, force: bool) -> None:
        try:
            await self._deps.fleet.unload(model, force=force)
        except SupervisorError as error:
            log.info("model_unload_refused", model=model, code=error.code, error=str(error))


def _timeout(request: web.Request) -> float | None:
    text = request.query.get("timeout")
    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise BadQueryError(f"timeout: {error}") from None
    if not math.isfinite(seconds) or seconds <= 0:
        raise BadQueryError(f"timeout={text!r} is no time to wait: write for example timeout=60s")
    return seconds


def read_tail(path: Path, *, lines: int) -> str:
    """The last *lines* lines of *path*, of at most its last `LOG_BYTES`. Blocks; raises FileNotFoundError."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = max(0, end - LOG_BYTES)
        file.seek(start)
        data = file.read(LOG_BYTES)
    if start:
        # The first line is most likely cut.
        data = data.partition(b"\n")[2]
    kept = data.splitlines(keepends=True)[-lines:]
    return b"".join(kept).decode("utf-8", "replace")
