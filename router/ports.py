"""What the front needs from the rest: small protocols and frozen data, declared by the consumer.

The hot path imports this and never the supervisor, the registry's readers or pydantic (an import contract).
`router.wiring` gives the front objects that satisfy these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from registry.capability import Endpoint, Needs
from registry.engine import Wire
from router.edits import Edits

Bytes = bytes | memoryview
"""A body: `bytes` when it came in one small piece, a view from the start of a `bytearray` when it is
large."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: the answer of the registry to a name and an endpoint."""

    model: str
    """Id of the model; also the label in metrics."""
    handle: object
    """Given back to `Upstreams` as it is."""
    wire: Wire
    check: RequestCheck | None = None
    """Refuses what the model certainly cannot do; None where nothing is certain."""
    edits: Edits | None = None
    """The operator's changes to a JSON request."""
    plans: dict[tuple[str, str | None, bool], Any] = field(
        init=False, default_factory=dict, compare=False, repr=False
    )
    """What `router.plan` made of requests that go as they came: by path, name and whether they stream."""


class RequestCheck(Protocol):
    """Whether a model can do what the content of a request asks for."""

    @property
    def read(self) -> Callable[[Bytes], Needs]:
        """What a JSON body asks for, as far as this check is about it; `NO_NEEDS` for nothing."""
        ...

    def __call__(self, needs: Needs, endpoint: Endpoint, holder: Holder | None) -> None:
        """Raises a `registry.errors.RegistryError` that names only models *holder* may use."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who answers a virtual name this time."""

    routes: tuple[Route, ...]
    """At least one; the further ones are asked in turn when the first cannot answer."""
    on: frozenset[str]
    """When: `failure`, `overload`."""


class Choice(Protocol):
    """A virtual name: which model answers is chosen for each request."""

    @property
    def read(self) -> Callable[[Bytes], Needs]:
        """What a JSON body asks for."""
        ...

    def __call__(self, needs: Needs, endpoint: Endpoint, holder: Holder | None) -> Chosen:
        """Those that can serve it and that *holder* may use. Raises a `registry.errors.RegistryError`."""
        ...


class Directory(Protocol):
    """Names to routes. Pure lookups, under 2 us for an exact id."""

    def route(self, name: str | None, endpoint: Endpoint, holder: Holder | None = None) -> Route | Choice:
        """The route for *name* (None: the default model) when *holder* asks, or the choice it stands for.

        Raises a `registry.errors.RegistryError` when there is none or it cannot serve *endpoint*; the front
        only hands it to `Refusals`.
        """
        ...

    def below(self, path: str, holder: Holder | None = None) -> tuple[Route, str]:
        """The model that *path* begins with, by the longest name that is known, and what follows of *path*.

        Both are percent-encoded as in a request; what follows begins with a slash, or is empty. Raises as
        `route` does.
        """
        ...


class Outcome(StrEnum):
    """How a lease ended; the supervisor draws its conclusions, metrics count it."""

    SERVED = "served"
    CLIENT_GONE = "client_gone"
    UPSTREAM_FAILED = "upstream_failed"
    """Refused, reset or cut by the engine: the instance is checked at once."""
    ABANDONED = "abandoned"
    """We gave up (time-out, shutdown) while the engine still worked."""


class Lease(Protocol):
    """One request's claim on an instance. While it is held, the instance is not stopped for another."""

    @property
    def host(self) -> str:
        """Address to connect to."""
        ...

    @property
    def port(self) -> int:
        """Port to connect to."""
        ...

    @property
    def key(self) -> str:
        """API key the engine demands, or ""."""
        ...

    @property
    def generation(self) -> int:
        """Differs between incarnations, so that a pooled connection never outlives its process."""
        ...

    @property
    def tls(self) -> bool:
        """True only for an `https://` endpoint."""
        ...

    @property
    def revoked(self) -> bool:
        """An operator takes the instance away: a request that is cut by that is not tried again."""
        ...

    def keep(self, seconds: float) -> None:
        """Let the instance stay so long (inf: for ever) after its last lease, if nobody says otherwise later.

        What serves without being ours to stop takes no notice.
        """
        ...

    def release(self, outcome: Outcome) -> None:
        """Give it back. The second call does nothing."""
        ...


class Upstreams(Protocol):
    """Leases on instances and endpoints."""

    def lease_now(self, route: Route) -> Lease | None:
        """A lease on a ready instance with a free slot, or None. A dict lookup and a counter."""
        ...

    def lease_of(self, route: Route, generation: int) -> Lease | None:
        """A lease on that incarnation, whether it has a free slot or not; None if it is gone, or is going."""
        ...

    async def lease(
        self, route: Route, *, timeout: float | None = None, request: str = "", priority: int = 0
    ) -> Lease:
        """A lease, waiting for a start, a slot or memory as long as the settings (or *timeout*) allow.

        *request* is the request's id: why it waited is remembered under it. *priority* is its key's.
        Cancelling the call gives the place in the queue back. Raises what `Refusals` knows.
        """
        ...

    def ready_in(self, route: Route) -> float | None:
        """Seconds until the model is likely to be ready; None if nobody knows."""
        ...

    def waiting_note(self, route: Route) -> str:
        """What the model is waited for now, for people: `loading qwen3-8b 42% eta 12s`."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer we give ourselves, before any protocol's envelope is put around it."""

    status: int
    code: str
    """Stable, documented: `model_not_found`, `queue_full` …"""
    message: str
    type: str = "invalid_request_error"
    """OpenAI's `error.type`."""
    param: str | None = None
    retry_after: float | None = None
    """Seconds."""
    headers: tuple[tuple[str, str], ...] = ()


class Refusals(Protocol):
    """Exceptions to refusals: total, so that no exception class of ours is answered 500 by accident."""

    def __call__(self, error: BaseException) -> Refusal: ...


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """Bounds of the front; defaults and their reasons are in `config.schema.LimitsConfig`. Seconds, bytes."""

    header_bytes: int = 65536
    header_count: int = 100
    body_bytes: int = 64 * 2**20
    buffered_bytes_per_model: int = 256 * 2**20
    buffered_bytes_total: int = 1024 * 2**20
    connections: int = 4096
    connections_per_client: int = 1024
    head_timeout: float = 30.0
    body_timeout: float = 60.0
    keep_alive: float = 75.0
    first_byte_timeout: float = 600.0
    answer_timeout: float = 0.0
    """From the request's last byte to the answer's; 0: as long as it takes."""
    tunnel_idle: float = 600.0
    """A WebSocket on which nothing passes either way is closed, and its model may go."""
    idle_upstream: float = 4.0
    loading_comments: bool = True
    loading_reasoning: bool = False
    """The same as pieces of reasoning, in chat completions."""
    loading_space: bool = False
    """Who does not stream gets a 200 and white space while the model loads."""
    patience: float = 0.0
    """Who does not stream waits this long for a model to load, then is told to come again; 0: without end."""
    stall_timeout: float = 300.0
    """A client that reads nothing of its answer for this long is cut; a person in a debugger is not."""
    comment_every: float = 1.0
    """Pause between two SSE comments while a model loads; the first comes after the same time."""


class RequestRecord(
    msgspec.Struct,
    gc=False,
    tag_field="event",
    tag="request_served",
    rename={
        "waited": "waited_seconds",
        "first_byte": "first_byte_seconds",
        "total": "total_seconds",
        "trace": "trace_id",
    },
):
    """What is known of a request once its last byte is written. Filled by the front, read by `Recorder`.

    Its encoding is the access log's JSON line, whose keys are documented and stable: made and written in C, a
    request's record costs a fifth of what it would as a plain object.
    """

    request_id: str
    method: str
    path: str
    client: str
    model: str = ""
    status: int = 0
    outcome: str = ""
    """An `Outcome`, `refused`, or `control`."""
    code: str = ""
    """Refusal code, if refused."""
    streamed: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    waited: float = 0.0
    """Seconds from the request's last byte to a lease."""
    first_byte: float = 0.0
    """Seconds from the request's last byte to the answer's first."""
    total: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retried: bool = False
    key: str = ""
    """Name of the key it was let in by; empty: none was needed."""
    trace: str = ""
    """Its W3C trace id, if it came with one."""
    time: str = ""
    """When its line was written; filled by the access log."""


class RefusedRecord(RequestRecord, tag="request_refused"):
    """The same of a request that we have refused."""


Recorder = Callable[[RequestRecord], None]
"""Called once per request after its last byte: counters and the access log. Must not block or raise."""


class Holder(Protocol):
    """Whose request it is, when keys are on. Made per key, not per request."""

    @property
    def key(self) -> str:
        """Name of the key; also the label in metrics."""
        ...

    @property
    def admin(self) -> bool:
        """May do everything."""
        ...

    @property
    def priority(self) -> int:
        """Of its requests among those that wait: the higher goes first."""
        ...

    @property
    def by_cookie(self) -> bool:
        """Said by a browser's cookie, which a page of another site could make it send."""
        ...

    @property
    def inner(self) -> str:
        """What the daemon's requests to itself on this key's behalf say as their key; never shown."""
        ...

    def may_use(self, model: str) -> bool:
        """*model* is among those the key is for."""
        ...

    def objects_to(self, model: str) -> Refusal | None:
        """The refusal of a request for *model*; None when the key may use it."""
        ...

    def leave(self) -> None:
        """The request is over. Called once per request that was let in."""
        ...


class Asking(Protocol):
    """A request's head, as far as keys go. Requests may share one."""

    known: object
    """The authorizer's own note on it."""

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """By lower-case name."""
        ...

    @property
    def path(self) -> str:
        """Without the query."""
        ...


class Authorizer(Protocol):
    """Who may call what; the default lets everybody in (loopback only)."""

    def __call__(self, head: Asking) -> Holder | Refusal | None:
        """Whose request it is, a refusal, or None to let it in without a key.

        A `Holder` it returns is told when the request is over, whatever becomes of it.
        """
        ...


class Stranger(Protocol):
    """Tells web pages of other sites from programs: `router.control.guard.Guard.refuses`."""

    def __call__(self, method: str, headers: Mapping[str, str], /) -> Refusal | None:
        """Why a request with these fields (`Host`, `Origin`, `Sec-Fetch-Site`) is not let in."""
        ...


class ControlDoor(Protocol):
    """Opens in-process connections to the control app."""

    def open(self, client: str, holder: Holder | None = None) -> object:
        """The front's end of a fresh `socket.socketpair()` whose other end the control app serves.

        *client* and *holder* say who is behind it; they belong to the pair, never to a header. Returns a
        `socket.socket`.
        """
        ...
