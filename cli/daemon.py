"""Talking to the daemon: where it is, asking it, and turning what goes wrong into one line.

Synchronous: a command asks one thing at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx

from cli import terminal
from cli.errors import CliError, RefusedError, Status

DEFAULT_URL: Final = "http://127.0.0.1:8080"
CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 15.0
"""Status and lists are snapshots: a daemon that takes longer than this is stuck."""
SILENCE_SECONDS: Final = 45.0
"""What is followed says something every 15 s, if only that nothing is new."""


def find_url(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The daemon's base URL: *given*, else `$MODELYARD_URL`, else the configuration's `listen`.

    A configuration that cannot be read is no reason not to reach a daemon: it is noted, and the default used.
    """
    url = given or environment.get("MODELYARD_URL") or _configured_url(environment)
    if url.startswith("unix:/"):
        return f"unix:/{url.removeprefix('unix:').lstrip('/')}"  # also as URLs have it, unix:///path
    if "://" not in url:
        url = f"http://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CliError(f"{url!r} is no address of a daemon: write {DEFAULT_URL}", Status.USAGE)
    return url.rstrip("/").removesuffix("/v1")


def _configured_url(environment: Mapping[str, str]) -> str:
    from config.errors import ConfigError
    from config.load import find_config, load_settings

    try:
        path = find_config(None, environment, Path.cwd())
        listen = load_settings(path, environment).settings.addresses[0]
    except ConfigError as error:
        terminal.note(f"note: the configuration is wrong, trying {DEFAULT_URL} ({error.problems[0]})")
        return DEFAULT_URL
    return url_of(listen)


def url_of(listen: str) -> str:
    """The URL under which a daemon that listens on *listen* is reached from this machine."""
    from config.listening import UNIX, reached_at

    return listen if listen.startswith(UNIX) else reached_at(listen)[0]


def key_header(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The header that shows `$MODELYARD_API_KEY`; none when it is not set."""
    key = environment.get("MODELYARD_API_KEY", "").strip()
    return {"Authorization": f"Bearer {key}"} if key else {}


def model_path(model: str, verb: str) -> str:
    """`/api/models/<id>/<verb>` with the id in one percent-encoded segment."""
    return f"/api/models/{quote(model, safe='')}/{verb}"


class Daemon:
    """A daemon at *url*. Everything raises `CliError`: status 69 when nobody answers there."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        if url.startswith("unix:"):
            transport = transport or httpx.HTTPTransport(uds=url.removeprefix("unix:"), verify=False)
            url = "http://localhost"
        parts = urlsplit(url)
        loopback = (parts.hostname or "") in ("127.0.0.1", "::1", "localhost")
        self._http = httpx.Client(
            base_url=url,
            transport=transport,
            headers=key_header(),
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            # $HTTP_PROXY is meant for the world outside: a proxy cannot reach our loopback.
            trust_env=not loopback,
            # Reading the certificates takes longer than the whole conversation with a local daemon.
            verify=parts.scheme == "https",
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **query: str | int) -> Any:
        """The JSON answer to GET *path*."""
        return self._ask("GET", path, params=query)

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        patience: float | None = ANSWER_SECONDS,
    ) -> Any:
        """The JSON answer to POST *path*, waiting *patience* seconds for it (None: as long as it takes)."""
        return self._ask("POST", path, json=body, params=query, timeout=self._timeout(patience))

    @contextmanager
    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Iterator[str]]:
        """The lines of a streamed answer. Leaving the block closes the connection, which ends the work."""
        with self._streamed("POST", path, json=body, timeout=self._timeout(None)) as lines:
            yield lines

    @contextmanager
    def listen(self, path: str, **query: str | int) -> Iterator[Iterator[str]]:
        """The lines of an answer to GET *path* that goes on until one side leaves. Raises when it is silent
        for longer than the daemon ever is."""
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        with self._streamed("GET", path, params=query, timeout=timeout) as lines:
            yield lines

    @contextmanager
    def _streamed(self, method: str, path: str, **options: Any) -> Iterator[Iterator[str]]:
        try:
            request = self._http.build_request(method, path, **options)
            response = self._http.send(request, stream=True)
        except httpx.HTTPError as problem:
            raise self._unreachable(problem) from problem
        try:
            if response.status_code >= 400:
                response.read()
                raise refusal(response)
            yield response.iter_lines()
        except httpx.HTTPError as problem:
            raise CliError(f"the answer was cut short: {_words(problem)}") from problem
        finally:
            response.close()

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as problem:
            raise self._unreachable(problem) from problem
        if response.status_code >= 400:
            raise refusal(response)
        try:
            return response.json()
        except ValueError:
            raise self._stranger(f"{method} {path} was answered without JSON") from None

    def _timeout(self, patience: float | None) -> httpx.Timeout:
        return httpx.Timeout(patience, connect=CONNECT_SECONDS)

    def _stranger(self, what: str) -> CliError:
        return CliError(f"the server at {self.url} is not modelyard: {what}", Status.UNREACHABLE)

    def _unreachable(self, problem: httpx.HTTPError) -> CliError:
        if isinstance(problem, httpx.ConnectError | httpx.ConnectTimeout):
            hint = "start it with `modelyard serve`, or name another with --url or $MODELYARD_URL"
            return CliError(f"no daemon answers at {self.url}: {hint}", Status.UNREACHABLE)
        if isinstance(problem, httpx.TimeoutException):
            return CliError(f"the daemon at {self.url} took the request and did not answer it in time")
        return CliError(
            f"the daemon at {self.url} broke the connection: {_words(problem)}", Status.UNREACHABLE
        )


def refusal(response: httpx.Response) -> RefusedError:
    """An answer of 400 and above as an error: its envelope's message and code, or the first of its text."""
    status = response.status_code
    try:
        found = response.json()
    except ValueError:
        found = None
    inner = found.get("error") if isinstance(found, dict) else None
    if isinstance(inner, dict) and inner.get("message"):
        return RefusedError(str(inner["message"]), code=str(inner.get("code") or ""), http_status=status)
    said = (inner if isinstance(inner, str) else response.text).strip()[:200]
    where = f"{response.request.method} {response.request.url.path}"
    return RefusedError(
        f"{where} was answered {status}: {said or response.reason_phrase}", http_status=status
    )


def _words(problem: BaseException) -> str:
    return str(problem) or type(problem).__name__
