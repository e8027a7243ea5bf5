"""The control app: status, metrics, the model list and management, over aiohttp.

Reached through its `Door` only. Handlers serve snapshots; what takes more than 2 ms goes to a thread. Errors
of ours become OpenAI envelopes in one place, and every answer carries the same security headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog
from aiohttp import web

from router.control.answers import HEADERS, flag, json_answer, refused, wants_html
from router.control.configuration import Reloads, state_answer
from router.control.deps import ControlDeps
from router.control.door import caller_of
from router.control.events import PING
from router.control.explain import Explain
from router.control.exposition import CONTENT_TYPE, render
from router.control.feed import StatusFeed
from router.control.guard import Guard
from router.control.login import Login
from router.control.manage import Manage
from router.control.models import Models
from router.control.openapi import document
from router.control.restart import Restart
from router.control.seed import Seed
from router.control.status import RECENT_EVENTS, Moment, Pictures, Status, not_ready_because
from router.control.streams import STREAMS, Streams
from router.errors import INTERNAL, refusal_for
from router.ports import Refusal
from router.turns import Turns

log = structlog.get_logger("modelyard.control")

STATIC: Final = Path(__file__).parent / "static"
DRAW_SECONDS: Final = 0.1
"""Least time between two drawings of the status: fifty who poll cost no more than one."""
BODY_BYTES: Final = 64 * 1024
"""Nothing here takes a body; small ones are read and ignored."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(deps: ControlDeps) -> web.Application:
    """The control app over *deps*; serve it through a `Door`."""
    guard, auth = Guard.build(deps.listen, deps.host_names), deps.auth

    @web.middleware
    async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        holder = caller_of(request).holder
        by_cookie = holder is not None and holder.by_cookie
        refusal = guard.refuses(request.method, request.headers, by_cookie=by_cookie)
        resource = request.match_info.route.resource
        if refusal is None and resource is not None:
            # The front has asked the same of the path; here it is asked of the route that was found.
            refusal = auth.objects_to(holder, resource.canonical)
        if refusal is not None:
            return refused(refusal)
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as error:
            return _no_method(request, error)
        except web.HTTPNotFound:
            return _no_path(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return refused(Refusal(error.status, "bad_request", error.reason))
        except ConnectionError:
            raise  # the caller left; there is nobody to answer
        except Exception as error:
            answer = refusal_for(error)
            if answer is INTERNAL:
                log.exception("control_failed", path=request.path)
            return refused(answer)

    app = web.Application(middlewares=[answer_errors], client_max_size=BODY_BYTES)
    streams = app[STREAMS] = Streams()
    faces, seed = Face(deps, streams), Seed(deps)
    app.add_routes([*faces.routes(), *Models(deps).routes(), *Manage(deps, streams).routes(), *_pages()])
    app.add_routes([*seed.routes(), *Login(deps).routes(), *Explain(deps).routes(), *Restart(deps).routes()])
    app.add_routes(Reloads(deps).routes())
    app.on_response_prepare.append(_add_headers)
    app.on_cleanup.append(seed.close)

    async def send_listeners_home(_: web.Application) -> None:
        streams.close()
        deps.events.close()

    app.on_shutdown.append(send_listeners_home)
    return app


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _printable(path: str) -> str:
    return path[:200].encode("utf-8", "replace").decode()


def _no_path(request: web.Request) -> web.Response:
    return refused(
        Refusal(
            404,
            "unknown_path",
            f"there is nothing at {request.method} {_printable(request.path)}: "
            "GET / names what there is, GET /openapi.json describes it",
        )
    )


def _no_method(request: web.Request, error: web.HTTPMethodNotAllowed) -> web.Response:
    allowed = ", ".join(sorted(error.allowed_methods))
    message = f"{_printable(request.path)} takes {allowed}, not {error.method}"
    return refused(Refusal(405, "method_not_allowed", message), allow=allowed)


class Face:
    """Everything outside `/v1` and `/api/models`."""

    def __init__(self, deps: ControlDeps, streams: Streams) -> None:
        self._deps = deps
        self._streams = streams
        self._pictures = Pictures()
        self._feed = StatusFeed(deps.clock, self._status)
        self._drawing: asyncio.Task[bytes] | None = None
        """The status that was drawn last, or is being drawn."""
        self._next: asyncio.Task[bytes] | None = None
        """The one after it, for whoever asks now: an answer is never older than its question."""
        self._drawn_at = 0.0
        self._turns = Turns()

    def routes(self) -> list[web.RouteDef]:
        """What it serves."""
        return [
            web.get("/", self.root),
            web.get("/health", self.health),
            web.get("/ready", self.ready),
            web.get("/metrics", self.metrics),
            web.get("/status", self.status),
            web.get("/api/status", self.api_status),
            web.get("/api/status/stream", self.status_stream),
            web.get("/api/events", self.events),
            web.get("/openapi.json", self.openapi),
        ]

    async def root(self, request: web.Request) -> web.StreamResponse:
        """A browser goes on to the status page; a program learns what there is."""
        if wants_html(request):
            raise web.HTTPFound("/status", headers={"Vary": "Accept"})
        return _varying(
            json_answer(
                {
                    "name": "modelyard",
                    "version": self._deps.version,
                    "chat": "POST /v1/chat/completions",
                    "models": "GET /v1/models",
                    "status": "GET /status",
                    "metrics": "GET /metrics",
                    "management": "GET /api/models",
                    "everything": "GET /openapi.json",
                },
                pretty=True,
            )
        )

    async def health(self, _: web.Request) -> web.Response:
        """The daemon is alive: its event loop answers."""
        return json_answer({"status": "ok"})

    async def ready(self, _: web.Request) -> web.Response:
        """Some request can make progress; else 503 with the reason."""
        because = not_ready_because(self._deps.fleet.view(), self._deps.catalog().models)
        if because:
            return refused(Refusal(503, "not_ready", because, "server_error", retry_after=5.0))
        return json_answer({"status": "ready"})

    async def metrics(self, _: web.Request) -> web.Response:
        """Prometheus' text format. Copied here, rendered in a thread: with many models that takes a while."""
        view = self._deps.fleet.view()
        ready = not not_ready_because(view, self._deps.catalog().models)
        snapshot = self._deps.metrics.snapshot(view, ready=ready)
        body = await asyncio.to_thread(render, snapshot)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def status(self, request: web.Request) -> web.StreamResponse:
        """The page for a browser, JSON for a program."""
        if wants_html(request):
            return _varying(_file("status.html", "text/html"))
        return _varying(await self._picture(pretty=True))

    async def api_status(self, request: web.Request) -> web.Response:
        """The same JSON, for the page and for programs that poll."""
        return await self._picture(pretty=flag(request, "pretty"))

    async def _picture(self, *, pretty: bool) -> web.Response:
        """The status as JSON: drawn once for all who ask before its drawing begins, and in a thread, since
        with hundreds of models it takes longer than a token may wait."""
        if self._next is None:
            self._next = self._deps.spawn(self._draw(self._drawing), name="draw status")
        # The first who asked may leave; the others still want it.
        body = await asyncio.shield(self._next)
        await self._turns.mine()  # all who share it are told at once
        if pretty:
            body = await asyncio.to_thread(lambda: msgspec.json.format(body, indent=2) + b"\n")
        return web.Response(body=body, content_type="application/json")

    async def _draw(self, before: asyncio.Task[bytes] | None) -> bytes:
        if before is not None:
            await asyncio.wait([before])
        clock = self._deps.clock
        since = clock.now() - self._drawn_at
        if 0 < since < DRAW_SECONDS:
            due = asyncio.Event()
            clock.call_later(DRAW_SECONDS - since, due.set)
            await due.wait()
        self._drawn_at = clock.now()
        self._drawing, self._next = self._next, None
        moment = self._moment()
        return await asyncio.to_thread(lambda: msgspec.json.encode(self._pictures.draw(moment), enc_hook=str))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The supervisor's events as they come, after those that are kept; `Last-Event-ID` resumes."""
        last = request.headers.get("Last-Event-ID", "")
        after = int(last) if last.isdecimal() and len(last) < 19 else None
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the caller left")
        subscription = self._deps.events.subscribe(after=after, on_slow=transport.abort)
        try:
            with self._streams.open(subscription.close):
                return await _pass_on(request, subscription, first=PING)
        finally:
            subscription.close()

    async def status_stream(self, request: web.Request) -> web.StreamResponse:
        """The status, then what of it changes, at most twice a second; see `router.control.feed`."""
        watcher = self._feed.watch()
        try:
            with self._streams.open(watcher.end):
                return await _pass_on(request, watcher)
        finally:
            watcher.close()

    async def openapi(self, _: web.Request) -> web.Response:
        """This API, described."""
        # Reads its schemas' descriptions from the source: too long for the loop.
        return json_answer(await asyncio.to_thread(document, self._deps.version))

    def _status(self) -> Status:
        return self._pictures.draw(self._moment())

    def _moment(self) -> Moment:
        deps = self._deps
        return Moment(
            version=deps.version,
            pid=deps.pid,
            listen=deps.listen,
            uptime_seconds=deps.clock.now() - deps.started,
            fleet=deps.fleet.view(),
            models=deps.catalog().models,
            totals=deps.metrics.totals(),
            use=deps.metrics.use(),
            requests_per_second=deps.requests_per_second(),
            front=deps.front(),
            loop_lag_seconds=deps.metrics.lag.worst(),
            events=deps.events.recent(RECENT_EVENTS),
            default_model=deps.catalog().default_model,
            virtual=deps.catalog().virtual,
            configuration=state_answer(deps.configuration.standing),
        )


class _Frames(Protocol):
    """Where a stream's bytes come from: `next` waits for some, None is the end."""

    async def next(self) -> bytes | None: ...


async def _pass_on(request: web.Request, frames: _Frames, *, first: bytes = b"") -> web.StreamResponse:
    # nginx would keep a quiet stream to itself until it has collected a buffer of it.
    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    if first:
        await response.write(first)
    while (frame := await frames.next()) is not None:
        await response.write(frame)
    return response


def _varying(response: web.Response) -> web.Response:
    response.headers["Vary"] = "Accept"
    return response


# -- the page's files ------------------------------------------------------------------------------


_TYPES: Final = {".css": "text/css", ".js": "text/javascript"}


def _pages() -> list[web.RouteDef]:
    """One route per file that is there now: no path a client writes ever reaches the file system."""
    files = sorted(path for path in STATIC.iterdir() if path.suffix in _TYPES)
    return [
        web.get(f"/static/{path.name}", partial(_serve, path.name, _TYPES[path.suffix])) for path in files
    ]


async def _serve(name: str, content_type: str, _: web.Request) -> web.Response:
    return _file(name, content_type)


def _file(name: str, content_type: str) -> web.Response:
    # 20 KB that lie in the page cache: dearer to hand to a thread than to read.
    return web.Response(body=(STATIC / name).read_bytes(), content_type=content_type, charset="utf-8")
