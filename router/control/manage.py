"""The management API below `/api/models`: look at instances, load, unload, pin, read an engine's log."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Final, TypedDict

import structlog
from aiohttp import web

from config.schema import parse_duration
from registry.describe import dossier
from registry.engine import ModelId
from registry.model import Model
from router.control.answers import flag, json_answer, number
from router.control.deps import ControlDeps
from router.control.door import caller_of
from router.control.follow import LogReader, Mark, Wish, follow, read_tail
from router.control.status import ModelStatus, model_status
from router.control.streams import Streams
from router.errors import BadQueryError, NoLogError, NotOursError
from supervisor.errors import SupervisorError
from supervisor.lifecycle import State
from supervisor.ports import EventKind, SupervisorEvent

log = structlog.get_logger("modelyard.control")

LOG_LINES: Final = 10_000

_DOWN_AFTER_CRASH: Final = frozenset({State.BACKOFF, State.FAILED})


class ModelStatuses(TypedDict):
    """Every model with its instance."""

    models: list[ModelStatus]


class LogTail(TypedDict):
    """The end of an engine's log."""

    model: str
    log: str
    """Path of the file, on the daemon's machine."""
    lines: list[str]
    """Oldest first."""


class Manage:
    """The management API. Errors are raised as what they are; the app turns them into answers."""

    def __init__(self, deps: ControlDeps, streams: Streams) -> None:
        self._deps = deps
        self._streams = streams
        self._loading: set[ModelId] = set()

    def routes(self) -> list[web.RouteDef]:
        """What it serves. Ids contain slashes, so the verb is the last segment."""
        return [
            web.get("/api/models", self.list),
            web.get(r"/api/models/{id:.+}/logs", self.logs),
            web.get(r"/api/models/{id:.+(?<!/load)(?<!/unload)(?<!/pin)(?<!/unpin)(?<!/logs)}", self.one),
            web.post(r"/api/models/{id:.+}/load", self.load),
            web.post(r"/api/models/{id:.+}/unload", self.unload),
            web.post(r"/api/models/{id:.+}/pin", self.pin),
            web.post(r"/api/models/{id:.+}/unpin", self.unpin),
        ]

    async def list(self, _: web.Request) -> web.Response:
        """Every model with its instance."""
        models = self._deps.catalog().models
        return json_answer(ModelStatuses(models=[self._status(model) for _, model in sorted(models.items())]))

    async def one(self, request: web.Request) -> web.Response:
        """One of them, with every fact, who says it and who says otherwise."""
        model = self._model(request)
        return json_answer({**self._status(model), **dossier(model)})

    async def load(self, request: web.Request) -> web.Response:
        """Start the model and answer when it is ready; with `wait=0` answer 202 at once.

        `retry=1` first clears BACKOFF and FAILED: for an operator who has mended what was broken. `timeout`
        bounds the wait. A caller that leaves gives up its wait, not the start.
        """
        model = self._ours(request)
        wait, timeout = flag(request, "wait", default=True), _timeout(request)
        retry = flag(request, "retry")
        log.info("model_load_asked", model=model.id, client=caller_of(request).client, retry=retry)
        self._tell(model, "retry" if retry else "load")
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
        self._tell(model, "force" if force else "unload")
        if wait:
            await self._deps.fleet.unload(model.id, force=force)
            return json_answer(self._status(model))
        self._deps.spawn(self._unload_unattended(model.id, force=force), name=f"unload {model.id}")
        return json_answer(self._status(model), status=202)

    async def pin(self, request: web.Request) -> web.Response:
        """Keep the model in memory, whoever else wants it, until `unpin` or the end of the daemon."""
        return self._pin(request, pinned=True)

    async def unpin(self, request: web.Request) -> web.Response:
        """Let it be stopped again when it idles or when another needs its memory."""
        return self._pin(request, pinned=False)

    def _pin(self, request: web.Request, *, pinned: bool) -> web.Response:
        model = self._ours(request)
        log.info("model_pin_asked", model=model.id, client=caller_of(request).client, pinned=pinned)
        self._tell(model, "pin" if pinned else "unpin")
        self._deps.fleet.pin(model.id, pinned=pinned)
        return json_answer(self._status(model))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """The last `tail` lines of the engine's current log: text, or with `format=json` a list.

        `follow=1` goes on with each new line until the caller leaves; with `Accept: text/event-stream` (or
        `format=events`) as events that can be resumed after a lost connection.
        """
        model = self._ours(request)
        lines = number(request, "tail", default=200, most=LOG_LINES)
        instance = self._deps.fleet.instance(model.id)
        if instance is None or instance.log is None:
            raise NoLogError(f"{model.id} has not been started yet, so there is no log: load it first")
        kind = _format(request)
        try:
            if flag(request, "follow") or kind == "events":
                wish = Wish(lines, Mark.parse(request.headers.get("Last-Event-ID", "")), kind == "events")
                reader = LogReader(Path(instance.log))
                return await follow(request, reader, wish, streams=self._streams, clock=self._deps.clock)
            text = await asyncio.to_thread(read_tail, Path(instance.log), lines=lines)
        except FileNotFoundError:
            raise NoLogError(f"the log of {model.id} is gone: {instance.log} was removed") from None
        if kind == "json":
            return json_answer(LogTail(model=model.id, log=instance.log, lines=text.splitlines()))
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
        deps = self._deps
        return model_status(model, deps.fleet.instance(model.id), deps.metrics.use_of(model.id))

    def _tell(self, model: Model, wish: str) -> None:
        """Put what an operator asked for among the events, so that what follows has its reason there."""
        clock, instance = self._deps.clock, self._deps.fleet.instance(model.id)
        incarnation = 0 if instance is None else instance.incarnation
        event = SupervisorEvent(EventKind.ASKED, model.id, incarnation, clock.wall(), {"wish": wish})
        self._deps.metrics.on_event(event)
        self._deps.events.publish(event)

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


def _format(request: web.Request) -> str:
    kind = request.query.get("format", "")
    if kind not in ("", "text", "json", "events"):
        raise BadQueryError(f"format={kind[:40]!r} is not known: write format=text, json or events")
    if kind == "json" and flag(request, "follow"):
        raise BadQueryError("a log that is followed is no single JSON document: write format=events")
    return kind or ("events" if "text/event-stream" in request.headers.get("Accept", "") else "text")
