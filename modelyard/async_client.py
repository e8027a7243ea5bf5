"""`modelyard.AsyncClient`: what `modelyard.client` has, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from modelyard.asking import TIMEOUT_SECONDS, Ask, Requests, object_in, refusal_in
from modelyard.results import (
    Answer,
    Image,
    Message,
    ModelInfo,
    ModelState,
    Piece,
    StreamReader,
    YardStatus,
    read_answer,
    read_model_state,
    read_models,
    read_status,
)


class AsyncStream:
    """`Stream` for `async for` and `async with`."""

    def __init__(self, http: httpx.AsyncClient, requests: Requests, ask: Ask) -> None:
        self.read = StreamReader()
        """What came so far."""
        self._pieces = self._run(http, requests, ask)

    @property
    def text(self) -> str:
        """The answer so far."""
        return self.read.text

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self._pieces

    async def __anext__(self) -> Piece:
        return await anext(self._pieces)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Want no more of it."""
        await self._pieces.aclose()

    async def _run(
        self, http: httpx.AsyncClient, requests: Requests, ask: Ask
    ) -> AsyncGenerator[Piece, None]:
        with requests.blaming():
            async with http.stream(ask.method, ask.path, json=ask.body) as response:
                if response.status_code >= 400:
                    await response.aread()
                    raise refusal_in(response)
                async for line in response.aiter_lines():
                    for piece in self.read.feed(line):
                        yield piece
        self.read.finished()


class AsyncClient:
    """A daemon, spoken to asynchronously; the methods of `Client`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """As `Client`."""
        self._requests = Requests(url, model, api_key, timeout)
        path = self._requests.socket
        transport = None if path is None else httpx.AsyncHTTPTransport(uds=path)
        self._http = httpx.AsyncClient(transport=transport, **self._requests.options)

    def __repr__(self) -> str:
        return f"<AsyncClient {self.url} model={self._requests.model}>"

    @property
    def url(self) -> str:
        """The daemon's address."""
        return self._requests.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def load(self, model: str | None = None, *, retry: bool = False) -> ModelState:
        """Start a model and wait until it is ready. *retry*: also one that crashed too often."""
        return read_model_state(await self._send(self._requests.manage("load", model, retry=retry)))

    async def unload(self, model: str | None = None, *, force: bool = False) -> ModelState:
        """Stop a model and wait until its processes are gone. *force* cuts the requests in flight."""
        return read_model_state(await self._send(self._requests.manage("unload", model, force=force)))

    async def models(self) -> tuple[ModelInfo, ...]:
        """What can be asked for, loaded or not."""
        return read_models(await self._send(Ask("GET", "/v1/models")))

    async def status(self) -> YardStatus:
        """The daemon now."""
        return read_status(await self._send(Ask("GET", "/api/status")))

    async def generate(
        self,
        prompt: str,
        *,
        system: str = "",
        images: Sequence[Image] = (),
        raw: bool = False,
        **options: Any,
    ) -> Answer:
        """The answer to *prompt*; *raw*: without the chat template. *options*: `model`, `max_tokens` …"""
        if raw:
            return read_answer(await self._send(self._requests.complete(prompt, options)))
        return await self.chat(prompt, system=system, images=images, **options)

    async def chat(
        self,
        messages: str | Sequence[Message],
        *,
        system: str = "",
        images: Sequence[Image] = (),
        **options: Any,
    ) -> Answer:
        """The next turn of a conversation, or the answer to one question."""
        ask = self._requests.chat(messages, system=system, images=images, options=options)
        return read_answer(await self._send(ask))

    def stream(
        self,
        messages: str | Sequence[Message],
        *,
        system: str = "",
        images: Sequence[Image] = (),
        **options: Any,
    ) -> AsyncStream:
        """The same, piece by piece; not awaited itself."""
        ask = self._requests.chat(messages, system=system, images=images, options=options)
        return AsyncStream(self._http, self._requests, self._requests.streamed(ask))

    async def _send(self, ask: Ask) -> dict[str, Any]:
        with self._requests.blaming():
            return object_in(await self._http.request(ask.method, ask.path, json=ask.body))
