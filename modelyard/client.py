"""`modelyard.Client` and `modelyard.AsyncClient`: a daemon from Python, with httpx and the standard library.

    from modelyard import Client

    with Client(model="qwen3-8b") as yard:
        yard.load()
        print(yard.chat("What is a router?").text)
        for piece in yard.stream("Write a poem."):
            print(piece, end="", flush=True)

Both have the same methods. They raise `modelyard.client.ModelyardError` and nothing else on purpose:
`UnreachableError`, `NoAnswerError`, `AnswerCutError`, `RefusedError` with the daemon's stable `code`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from modelyard.asking import TIMEOUT_SECONDS, Ask, Requests, object_in, refusal_in
from modelyard.async_client import AsyncClient, AsyncStream
from modelyard.results import (
    Answer,
    AnswerCutError,
    Image,
    Message,
    ModelInfo,
    ModelState,
    ModelyardError,
    NoAnswerError,
    Piece,
    RefusedError,
    StreamReader,
    UnreachableError,
    Usage,
    YardStatus,
    read_answer,
    read_model_state,
    read_models,
    read_status,
)

__all__ = [
    "Answer",
    "AnswerCutError",
    "AsyncClient",
    "AsyncStream",
    "Client",
    "ModelInfo",
    "ModelState",
    "ModelyardError",
    "NoAnswerError",
    "Piece",
    "RefusedError",
    "Stream",
    "UnreachableError",
    "Usage",
    "YardStatus",
]


class Stream:
    """A streamed answer: iterate over its pieces, once. Leaving it early stops the generation.

    Sent when it is first asked for a piece. Use it as a context manager, or `close` it, when you may stop
    before the end.
    """

    def __init__(self, http: httpx.Client, requests: Requests, ask: Ask) -> None:
        self.read = StreamReader()
        """What came so far: `text`, `finish_reason`, `usage`, `model`, and the daemon's last `note`."""
        self._pieces = self._run(http, requests, ask)

    @property
    def text(self) -> str:
        """The answer so far."""
        return self.read.text

    def __iter__(self) -> Iterator[Piece]:
        return self._pieces

    def __next__(self) -> Piece:
        return next(self._pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Want no more of it."""
        self._pieces.close()

    def _run(self, http: httpx.Client, requests: Requests, ask: Ask) -> Generator[Piece, None, None]:
        with requests.blaming(), http.stream(ask.method, ask.path, json=ask.body) as response:
            if response.status_code >= 400:
                response.read()
                raise refusal_in(response)
            for line in response.iter_lines():
                yield from self.read.feed(line)
        self.read.finished()


class Client:
    """A daemon, spoken to synchronously. May be shared by threads."""

    def __init__(
        self,
        url: str | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """*url*: else `$MODELYARD_URL`, else `http://127.0.0.1:8080`; `unix:/path` is a socket file.

        *api_key*: else `$MODELYARD_API_KEY`.

        *model* is for calls that name none; without it they get the daemon's default one. *timeout* is the
        longest silence, in seconds.
        """
        self._requests = Requests(url, model, api_key, timeout)
        path = self._requests.socket
        transport = None if path is None else httpx.HTTPTransport(uds=path)
        self._http = httpx.Client(transport=transport, **self._requests.options)

    def __repr__(self) -> str:
        return f"<Client {self.url} model={self._requests.model}>"

    @property
    def url(self) -> str:
        """The daemon's address."""
        return self._requests.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def load(self, model: str | None = None, *, retry: bool = False) -> ModelState:
        """Start a model and wait until it is ready. *retry*: also one that crashed too often."""
        return read_model_state(self._send(self._requests.manage("load", model, retry=retry)))

    def unload(self, model: str | None = None, *, force: bool = False) -> ModelState:
        """Stop a model and wait until its processes are gone. *force* cuts the requests in flight."""
        return read_model_state(self._send(self._requests.manage("unload", model, force=force)))

    def models(self) -> tuple[ModelInfo, ...]:
        """What can be asked for, loaded or not."""
        return read_models(self._send(Ask("GET", "/v1/models")))

    def status(self) -> YardStatus:
        """The daemon now."""
        return read_status(self._send(Ask("GET", "/api/status")))

    def generate(
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
            return read_answer(self._send(self._requests.complete(prompt, options)))
        return self.chat(prompt, system=system, images=images, **options)

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        system: str = "",
        images: Sequence[Image] = (),
        **options: Any,
    ) -> Answer:
        """The next turn of a conversation, or the answer to one question."""
        ask = self._requests.chat(messages, system=system, images=images, options=options)
        return read_answer(self._send(ask))

    def stream(
        self,
        messages: str | Sequence[Message],
        *,
        system: str = "",
        images: Sequence[Image] = (),
        **options: Any,
    ) -> Stream:
        """The same, piece by piece."""
        ask = self._requests.chat(messages, system=system, images=images, options=options)
        return Stream(self._http, self._requests, self._requests.streamed(ask))

    def _send(self, ask: Ask) -> dict[str, Any]:
        with self._requests.blaming():
            return object_in(self._http.request(ask.method, ask.path, json=ask.body))
