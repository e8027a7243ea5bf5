"""Servers that run already: looked at now and then, listed, and used only when a model of theirs is named."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx
import structlog

from config.schema import EndpointConfig
from registry.model import Model
from registry.probe import ServedModel, parse_models
from router.ports import Outcome
from supervisor.errors import EndpointDownError
from supervisor.ports import Clock, Timer
from supervisor.tasks import Spawn

log = structlog.get_logger("modelyard.endpoints")

INSTANCE_HEADER: Final = "x-modelyard-instance"
"""Answers of a control app carry the daemon's id here, so that it knows itself when it meets itself."""

MOST_BYTES: Final = 4 * 2**20
"""Of a list of models; 10,000 of them take 2 MB."""


@dataclass(slots=True)
class _State:
    config: EndpointConfig
    host: str
    port: int
    tls: bool
    key: str
    up: bool = False
    problem: str = "not looked at yet"
    served: tuple[ServedModel, ...] = ()
    leases: int = 0
    timer: Timer | None = None
    looking: bool = False
    """A check is under way."""


class EndpointLease:
    """One request's claim on an endpoint; only counted, for it is not ours to stop."""

    __slots__ = ("_doubted", "_released", "_state", "generation", "host", "key", "port", "tls")

    revoked = False
    """It is not ours to take away."""

    def __init__(self, state: _State, doubted: Callable[[_State], None]) -> None:
        """*doubted* is called when a request failed there."""
        self._state = state
        self._doubted = doubted
        self._released = False
        self.host = state.host
        self.port = state.port
        self.key = state.key
        self.tls = state.tls
        self.generation = 0
        state.leases += 1

    def keep(self, seconds: float) -> None:
        """It stays as long as it likes."""

    def release(self, outcome: Outcome) -> None:
        """Give it back; the second call does nothing."""
        if not self._released:
            self._released = True
            self._state.leases -= 1
            if outcome is Outcome.UPSTREAM_FAILED:
                self._doubted(self._state)


class Endpoints:
    """All configured endpoints. Belongs to the event loop's thread."""

    def __init__(
        self,
        configs: tuple[EndpointConfig, ...],
        *,
        clock: Clock,
        spawn: Spawn,
        instance_id: str,
        changed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._spawn = spawn
        self._instance_id = instance_id
        self._changed = changed
        # A redirect could lead anywhere with our key; none of the servers we know sends one.
        self._client = httpx.AsyncClient(follow_redirects=False, trust_env=False)
        self._states = {config.name: self._state(config) for config in configs}

    @staticmethod
    def _state(config: EndpointConfig) -> _State:
        parts = urlsplit(config.url)
        tls = parts.scheme == "https"
        return _State(
            config=config,
            host=parts.hostname or "localhost",
            port=parts.port or (443 if tls else 80),
            tls=tls,
            key=os.environ.get(config.key_env, "") if config.key_env else "",
        )

    def start(self) -> None:
        """Look at each now and every `health_every` seconds, until `close`."""
        for state in self._states.values():
            self._look(state)

    async def close(self) -> None:
        """Look no more."""
        for state in self._states.values():
            if state.timer is not None:
                state.timer.cancel()
        await self._client.aclose()

    def served(self) -> Mapping[str, tuple[ServedModel, ...]]:
        """What each endpoint that is up serves."""
        return {name: state.served for name, state in self._states.items() if state.up}

    def problems(self) -> Mapping[str, str]:
        """Why those that are down are."""
        return {name: state.problem for name, state in self._states.items() if not state.up}

    def is_up(self, model: Model) -> bool:
        """Whether the endpoint of *model* answered last time."""
        state = self._states.get(model.endpoint.name) if model.endpoint is not None else None
        return state is not None and state.up

    def lease(self, model: Model) -> EndpointLease:
        """A lease on the endpoint of *model*. Raises EndpointDownError when it did not answer last time."""
        target = model.endpoint
        state = self._states.get(target.name) if target is not None else None
        if state is None:
            raise EndpointDownError(f"{model.id}: its endpoint is no longer configured")
        if not state.up:
            raise EndpointDownError(
                f"{model.id}: the endpoint {state.config.name} at {state.config.url} does not answer"
                f" ({state.problem}); start it, or remove it from endpoints",
                retry_after=state.config.health_every,
            )
        return EndpointLease(state, self._look)

    def _look(self, state: _State) -> None:
        """Look now, unless that is under way, and again `health_every` seconds later."""
        if self._client.is_closed:
            return
        if state.timer is not None:
            state.timer.cancel()
        state.timer = self._clock.call_later(state.config.health_every, lambda: self._look(state))
        if not state.looking:
            state.looking = True
            self._spawn(self._check(state), name=f"endpoint {state.config.name}")

    async def _check(self, state: _State) -> None:
        try:
            await self._look_at(state)
        finally:
            state.looking = False

    async def _look_at(self, state: _State) -> None:
        before, problem = (state.up, state.served), state.problem
        config = state.config
        try:
            served = await self._discover(state)
        except (httpx.HTTPError, TimeoutError, ValueError, OSError) as error:
            state.up = False
            state.problem = str(error) or type(error).__name__
        else:
            state.up, state.problem = True, ""
            state.served = served
        if not state.up and state.problem != problem:
            # The default endpoint is only looked at in case: that nothing listens there is no news.
            log.debug("endpoint_unusable", endpoint=config.name, url=config.url, problem=state.problem)
        if (state.up, state.served) == before:
            return
        if state.up:
            log.info("endpoint_up", endpoint=config.name, url=config.url, models=len(state.served))
        elif before[0]:
            log.warning("endpoint_down", endpoint=config.name, url=config.url, problem=state.problem)
        self._changed()

    async def _discover(self, state: _State) -> tuple[ServedModel, ...]:
        config = state.config
        headers = {INSTANCE_HEADER: self._instance_id}
        if state.key:
            headers["authorization"] = f"Bearer {state.key}"
        named = tuple(ServedModel(id=name) for name in config.models)
        limit = config.discover_timeout if config.auto_discover else config.health_timeout
        async with asyncio.timeout(limit):
            url = config.url.rstrip("/").removesuffix("/v1") + "/v1/models"
            async with self._client.stream("GET", url, headers=headers, timeout=limit) as answer:
                if answer.headers.get(INSTANCE_HEADER) == self._instance_id:
                    raise ValueError("it is this daemon itself")
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise ValueError(f"its list of models is over {MOST_BYTES} bytes")
                answer.raise_for_status()
        if not config.auto_discover:
            return named
        found = parse_models(bytes(body))
        names = {model.id for model in found}
        return (*found, *(model for model in named if model.id not in names))
