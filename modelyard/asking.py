"""What clients send, where to, and what their failures mean. Nothing here sends anything."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx

from modelyard.results import (
    AnswerCutError,
    Image,
    Message,
    NoAnswerError,
    RefusedError,
    UnreachableError,
    conversation,
    read_refusal,
)

DEFAULT_URL: Final = "http://127.0.0.1:8080"
TIMEOUT_SECONDS: Final = 900.0
"""Longest silence of the daemon: a request may wait 600 s for its model, and a long prefill comes on top."""
CONNECT_SECONDS: Final = 5.0


def socket_in(url: str) -> str | None:
    """The path in `unix:/path`, `unix:///path`, or `http+unix://%2Fpath` (as Docker's client has it); None
    for any other address."""
    for scheme in ("unix://", "unix:"):
        if url.startswith(scheme + "/"):
            return url.removeprefix(scheme)
    path = unquote(url.removeprefix("http+unix://").partition("/")[0])
    return path if url.startswith("http+unix://") and path.startswith("/") else None


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, before anybody sends it."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None


class Requests:
    """What both clients send; neither knows how."""

    def __init__(self, url: str | None, model: str | None, api_key: str | None, timeout: float) -> None:
        given = url or os.environ.get("MODELYARD_URL") or DEFAULT_URL
        self.socket = socket_in(given)
        """Path of the socket file it is reached by; None: by an address."""
        if self.socket is not None:
            self.url, base = f"unix:{self.socket}", "http://localhost"
        else:
            self.url = (given if "://" in given else f"http://{given}").rstrip("/").removesuffix("/v1")
            base = self.url
        parts = urlsplit(base)
        misses_path = self.socket is None and given.startswith("unix:")
        if misses_path or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{given!r} is no address of a daemon: write {DEFAULT_URL} or unix:/its/socket")
        self.model = model
        key = api_key or os.environ.get("MODELYARD_API_KEY")
        self.options: dict[str, Any] = {
            "base_url": base,
            "timeout": httpx.Timeout(timeout, connect=CONNECT_SECONDS),
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            # $HTTP_PROXY is meant for the world outside: a proxy cannot reach our loopback.
            "trust_env": parts.hostname not in ("127.0.0.1", "::1", "localhost"),
        }

    def manage(self, verb: str, model: str | None, **flags: bool) -> Ask:
        """Load or unload."""
        body: dict[str, Any] = {name: True for name, wanted in flags.items() if wanted}
        name = model or self.model
        return Ask("POST", f"/api/v1/inference/{verb}", body | ({"model": name} if name else {}))

    def chat(
        self,
        said: str | Sequence[Message],
        *,
        system: str,
        images: Sequence[Image],
        options: Mapping[str, Any],
    ) -> Ask:
        """A chat completion."""
        body = {**self._named(options), "messages": conversation(said, system=system, images=images)}
        return Ask("POST", "/v1/chat/completions", body)

    def complete(self, prompt: str, options: Mapping[str, Any]) -> Ask:
        """A text completion: the prompt as it is."""
        return Ask("POST", "/v1/completions", {**self._named(options), "prompt": prompt})

    def streamed(self, ask: Ask) -> Ask:
        """The same, answered piece by piece."""
        stream = {"stream": True, "stream_options": {"include_usage": True}}
        return Ask(ask.method, ask.path, {**(ask.body or {}), **stream})

    def _named(self, options: Mapping[str, Any]) -> dict[str, Any]:
        body = {key: value for key, value in options.items() if value is not None}
        if self.model is not None:
            body.setdefault("model", self.model)
        return body

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Turns what httpx raises into errors of ours."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise UnreachableError(
                f"no daemon answers at {self.url}: start it with `modelyard serve`, or name another by "
                "Client(url) or $MODELYARD_URL"
            ) from error
        except httpx.TimeoutException as error:
            raise NoAnswerError(
                f"the daemon at {self.url} took the request and did not answer in time"
            ) from error
        except httpx.TransportError as error:
            said = str(error) or type(error).__name__
            raise AnswerCutError(f"the daemon at {self.url} broke the connection: {said}") from error


def object_in(response: httpx.Response) -> dict[str, Any]:
    """The JSON object in a response. Raises RefusedError, or UnreachableError for a stranger."""
    if response.status_code >= 400:
        raise refusal_in(response)
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        where = f"{response.request.method} {response.request.url}"
        raise UnreachableError(f"what answers there is not modelyard: {where} was answered without JSON")
    return found


def refusal_in(response: httpx.Response) -> RefusedError:
    """A response of 400 and above, read, as an error."""
    after = response.headers.get("retry-after")
    return read_refusal(response.status_code, response.content, retry_after=after)
