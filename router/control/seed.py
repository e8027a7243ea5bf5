"""`/api/v1/inference`: the API that programs written before modelyard speak, on top of today's.

`load`, `unload` and `status` are control's own business. `generate` is an inference request, and those are
the front's: leases, queues, limits, retries, comments while a model loads and the counting of tokens exist
once, there. So it is translated and sent to the daemon's own address by HTTP, like any client's, and the
answer is translated back. Not by a lease taken here, which would be a second front with limits of its own;
and not by another pair of sockets into the front, which would save 50 microseconds of an answer that takes
seconds and need a second kind of caller in the hot path. A caller that leaves closes the inner request too.
`/api/v1/chat/completions` is not here at all: it is a row of the front's table.

Our own requests carry `Via`, and a request that has been through us is refused: whatever listens in our place
cannot send us in circles.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import msgspec
import structlog
from aiohttp import web

from config.listening import reached_at
from registry.errors import ModelRequiredError
from registry.model import Model
from router.control.answers import json_answer
from router.control.deps import ControlDeps
from router.control.door import Caller, caller_of
from router.control.seed_images import may_name_files, read_image
from router.control.seed_shapes import (
    Generation,
    ImagePath,
    Picture,
    flag_in,
    named_model,
    read_generation,
    seed_answer,
    seed_event,
    seed_status,
    todays_request,
)
from router.errors import NotOursError
from router.ports import Refusal
from router.refused import RefusedError, bad_request
from supervisor.lifecycle import State

log = structlog.get_logger("modelyard.control")

VIA: Final = "1.1 modelyard"
BODY_BYTES: Final = 64 * 2**20
"""As `limits.body_bytes`, which the front has checked already: this only lifts aiohttp's own megabyte."""
LINE_BYTES: Final = 2**20
"""Of one line of a stream: a chunk with the log probabilities of many tokens stays far below."""
INLINE_BYTES: Final = 256 * 1024
"""A larger body, which has images in it, is read in a thread: it would hold the loop for milliseconds."""
CONNECT_SECONDS: Final = 5.0

_PASSED_ON: Final = ("Retry-After", "x-should-retry")
_LOADED: Final = frozenset({State.READY, State.STARTING, State.DRAINING})
_DOWN_AFTER_CRASH: Final = frozenset({State.BACKOFF, State.FAILED})


class Seed:
    """The seed's API. Errors are raised as what they are; the app turns them into answers."""

    def __init__(self, deps: ControlDeps) -> None:
        self._deps = deps
        self._base, self._socket = reached_at(deps.listen[0])
        self._session: aiohttp.ClientSession | None = None

    def routes(self) -> list[web.RouteDef]:
        """What it serves."""
        return [
            web.post("/api/v1/inference/load", self.load),
            web.post("/api/v1/inference/unload", self.unload),
            web.get("/api/v1/inference/status", self.status),
            web.post("/api/v1/inference/generate", self.generate),
        ]

    async def close(self, _: web.Application) -> None:
        """Close the connections to the front."""
        if self._session is not None:
            await self._session.close()

    # -- models ------------------------------------------------------------------------------------

    async def load(self, request: web.Request) -> web.Response:
        """Start the model, or the default one, and answer when it is ready.

        A virtual name starts the model that would answer a request for it now.
        `"retry": true` first clears BACKOFF and FAILED. A model at an endpoint is loaded already.
        """
        body = await _object(request)
        model, retry = self._deps.pick(named_model(body)), flag_in(body, "retry")
        if model.problem is not None:
            raise model.problem
        log.info("model_load_asked", model=model.id, client=caller_of(request).client, retry=retry)
        began, fleet = self._deps.clock.now(), self._deps.fleet
        if model.endpoint is None:
            view = fleet.instance(model.id)
            if retry and view is not None and view.state in _DOWN_AFTER_CRASH:
                await fleet.unload(model.id)
            await fleet.load(model.id)
        took = round(self._deps.clock.now() - began, 3)
        return json_answer({"status": "loaded", **self._shown(model), "load_seconds": took})

    async def unload(self, request: web.Request) -> web.Response:
        """Stop the model, or the only one that is loaded. `"force": true` cuts its requests."""
        body = await _object(request)
        force, name = flag_in(body, "force"), named_model(body)
        model = self._only_loaded() if name is None else self._deps.resolve(name)
        if model is None:
            return json_answer({"status": "unloaded", "model": None})
        if model.endpoint is not None:
            raise NotOursError(
                f"{model.id} is served by {model.endpoint.url}, which modelyard neither starts nor stops: "
                "use that server's own tools"
            )
        log.info("model_unload_asked", model=model.id, client=caller_of(request).client, force=force)
        await self._deps.fleet.unload(model.id, force=force)
        return json_answer({"status": "unloaded", **self._shown(model)})

    async def status(self, request: web.Request) -> web.Response:
        """What is loaded, what could be, and the memory; of models that the caller's key is for."""
        deps, holder = self._deps, caller_of(request).holder
        models = deps.catalog().models
        if holder is not None:
            models = {name: model for name, model in models.items() if holder.may_use(name)}
        picture = Picture(
            version=deps.version,
            uptime_seconds=round(deps.clock.now() - deps.started, 3),
            default_model=deps.catalog().default_model,
            fleet=deps.fleet.view(),
            models=models,
        )
        return json_answer(seed_status(picture))

    def _only_loaded(self) -> Model | None:
        loaded = [view.model for view in self._deps.fleet.view().instances if view.state in _LOADED]
        if len(loaded) > 1:
            raise RefusedError(
                bad_request(
                    f"several models are loaded; say which in `model`: {', '.join(loaded)}",
                    code=ModelRequiredError.code,
                    param="model",
                )
            )
        return self._deps.resolve(loaded[0]) if loaded else None

    def _shown(self, model: Model) -> dict[str, Any]:
        view = self._deps.fleet.instance(model.id)
        return {
            "model": model.id,
            "engine": model.engine.value,
            "state": "endpoint" if view is None else view.state.value,
            "memory_bytes": None if view is None else view.measured_bytes or view.reserved_bytes,
            "context_length": model.facts.context_length.value,
        }

    # -- inference ---------------------------------------------------------------------------------

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Answer a prompt, whole or as events `{"text": …, "finish_reason": …}`.

        The last event has a `finish_reason`, or is `{"error": …}`; a stream without either was cut.
        """
        if "modelyard" in request.headers.get("Via", ""):
            raise RefusedError(
                Refusal(508, "loop_detected", "this request has been through modelyard before")
            )
        asked = read_generation(await _object(request))
        images = await self._readable(asked, caller_of(request))
        path, body = todays_request(asked, images)
        async with await self._ask(request, path, body) as answer:
            if answer.status != 200:
                return await _passed_on(answer)
            if asked.stream:
                return await _streamed(request, answer)
            return await _whole(answer)

    async def _ask(self, request: web.Request, path: str, body: dict[str, Any]) -> aiohttp.ClientResponse:
        """The front's answer to *body*, its head read. Raises RefusedError when there is none."""
        headers = {"Content-Type": "application/json", "Via": VIA}
        holder = caller_of(request).holder
        if holder is not None:
            # Counted, limited and refused like the caller's own request.
            headers["Authorization"] = f"Bearer {holder.inner}"
        if "x-request-id" in request.headers:
            # Both lines of the access log are the same request.
            headers["x-request-id"] = request.headers["x-request-id"]
        try:
            return await self._client().post(
                self._base + path, data=msgspec.json.encode(body), headers=headers
            )
        except aiohttp.ClientError as error:
            log.warning("own_front_unreachable", url=self._base, error=str(error))
            message = "the daemon is stopping, or has no room for another connection: try again"
            raise RefusedError(
                Refusal(503, "front_unreachable", message, "server_error", retry_after=5.0)
            ) from error

    async def _readable(self, asked: Generation, caller: Caller) -> tuple[str, ...]:
        """The request's images as URLs, files read into them."""
        settings = self._deps.seed()
        found = []
        for image in asked.images:
            if isinstance(image, ImagePath):
                may_name_files(settings, caller)
                found.append(await asyncio.to_thread(read_image, image.path, settings))
            else:
                found.append(image)
        return tuple(found)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No limit of connections: the door bounds the requests that get here, the front those it takes.
            connector: aiohttp.BaseConnector
            if self._socket is None:
                # This process answers at its own address, whatever name its certificate is for.
                connector = aiohttp.TCPConnector(limit=0, ssl=False)
            else:
                connector = aiohttp.UnixConnector(self._socket, limit=0)
            self._session = aiohttp.ClientSession(
                connector=connector,
                # How long an answer may take is the front's to say.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                read_bufsize=LINE_BYTES,
                trust_env=False,
            )
        return self._session


async def _object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object; an empty one is `{}`. Raises RefusedError."""
    raw = await request.clone(client_max_size=BODY_BYTES).read()
    if not raw.strip():
        return {}
    try:
        value = (
            await asyncio.to_thread(msgspec.json.decode, raw)
            if len(raw) > INLINE_BYTES
            else msgspec.json.decode(raw)
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(bad_request(f"the body is no JSON: {error}", code="invalid_json")) from None
    if not isinstance(value, dict):
        raise RefusedError(bad_request("the body is a JSON object with keys such as `prompt`"))
    return value


async def _passed_on(answer: aiohttp.ClientResponse) -> web.Response:
    """The front's refusal as it is: it is in our envelope already."""
    kept = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
    body = await answer.read()
    return web.Response(body=body, status=answer.status, content_type="application/json", headers=kept)


async def _whole(answer: aiohttp.ClientResponse) -> web.Response:
    try:
        return json_answer(seed_answer(msgspec.json.decode(await answer.read())))
    except (aiohttp.ClientError, msgspec.DecodeError) as error:
        refusal = Refusal(502, "answer_cut", f"the engine's answer was cut: {error}", "server_error")
        raise RefusedError(refusal) from error


async def _streamed(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async for piece in _pieces(answer):
        await response.write(piece)
    await response.write_eof()
    return response


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The events of *answer* in the seed's shape, comments as they are; never raises for what is read."""
    try:
        async for line in answer.content:
            if line.startswith(b":"):
                yield line.rstrip(b"\r\n") + b"\n\n"
            elif line.startswith(b"data:"):
                event = seed_event(line[5:].decode("utf-8", "replace"))
                if event is not None:
                    yield _event(event)
    except (aiohttp.ClientError, ValueError) as error:
        # The head is out: what is wrong can only be said in the stream.
        failure = {"message": f"the answer was cut: {error}", "type": "server_error", "code": "answer_cut"}
        yield _event({"error": {**failure, "param": None}})


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"
