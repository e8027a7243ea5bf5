"""What our own engines say of their models once they are ready: facts of rank `engine`.

Asked once for each incarnation, of the engine itself, and never what would make it load anything: its model
list, its routes, its health page. What it does not answer is not known; no request is delayed or fails by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol

import httpx
import structlog

from registry.engine import Answers, ModelId
from registry.model import Model
from registry.probe import ServedModel, parse_models, parse_routes, with_health, with_proof, with_routes
from supervisor.ports import EventKind, SupervisorEvent
from supervisor.tasks import Spawn

log = structlog.get_logger("modelyard.live_facts")

ANSWER_SECONDS: Final = 10.0
"""For all three pages: an engine that has just become ready may be at work on its first request."""
MOST_BYTES: Final = 4 * 2**20
"""Of a page; vLLM's list of routes has 200 kB."""

_UP: Final = frozenset({EventKind.READY, EventKind.ADOPTED})


class Addresses(Protocol):
    """The part of the supervisor that knows where instances listen."""

    def address(self, model: ModelId) -> tuple[int, str] | None:
        """(port on the loopback, key) of a model's tree; None without one."""
        ...


class LiveFacts:
    """What ready instances say. Belongs to the event loop's thread."""

    def __init__(
        self,
        models: Callable[[], Mapping[ModelId, Model]],
        addresses: Addresses,
        *,
        spawn: Spawn,
        changed: Callable[[], None],
    ) -> None:
        self._models = models
        self._addresses = addresses
        self._spawn = spawn
        self._changed = changed
        self._client = httpx.AsyncClient(follow_redirects=False, trust_env=False)
        self._served: dict[ModelId, ServedModel] = {}
        self._incarnations: dict[ModelId, int] = {}

    def served(self) -> Mapping[ModelId, ServedModel]:
        """What each model's engine said, of those that run."""
        return dict(self._served)

    def on_event(self, event: SupervisorEvent) -> None:
        """Ask an instance that has become ready; forget what one said that is gone. Never blocks."""
        if event.kind in _UP:
            self._incarnations[event.model] = event.incarnation
            self._spawn(self._ask(event.model, event.incarnation), name=f"facts of {event.model}")
        elif event.kind is EventKind.EXITED:
            self._incarnations.pop(event.model, None)
            if self._served.pop(event.model, None) is not None:
                self._changed()

    async def close(self) -> None:
        """Ask no more."""
        self._incarnations.clear()
        self._served.clear()
        await self._client.aclose()

    async def _ask(self, model_id: ModelId, incarnation: int) -> None:
        model, address = self._models().get(model_id), self._addresses.address(model_id)
        if model is None or model.spec is None or address is None:
            return
        served = await self._look(model, *address)
        if self._incarnations.get(model_id) != incarnation:
            return  # it has ended meanwhile
        if served != self._served.get(model_id):
            self._served[model_id] = served
            self._changed()

    async def _look(self, model: Model, port: int, key: str) -> ServedModel:
        assert model.spec is not None
        proof = next((step.path for step in model.spec.readiness if isinstance(step, Answers)), None)
        bare = with_proof(ServedModel(model.id), proof)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                listed = _of(model, await self._get(port, key, "/v1/models"))
                if listed is None:
                    return bare
                routed = with_routes(listed, parse_routes(await self._get(port, key, "/openapi.json")))
                found = with_health(routed, await self._get(port, key, "/health"))
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            log.debug("engine_says_nothing", model=model.id, problem=str(error) or type(error).__name__)
            return bare
        return replace(found if found.roles else with_proof(found, proof), id=model.id)

    async def _get(self, port: int, key: str, path: str) -> bytes:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        url = f"http://127.0.0.1:{port}{path}"
        async with self._client.stream("GET", url, headers=headers, timeout=ANSWER_SECONDS) as answer:
            if answer.status_code != httpx.codes.OK:
                return b""
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    return b""
        return bytes(body)


def _of(model: Model, body: bytes) -> ServedModel | None:
    """The model's own entry in the list of its engine; None where the list has it not, or is none."""
    try:
        listed = parse_models(body)
    except ValueError:
        return None
    names = {model.wire.served_name, *model.wire.accepted_names}
    return next((one for one in listed if one.id in names), None)
