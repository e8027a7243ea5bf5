"""Keys in force: finding the one a request shows, and what it may do. Pure; all times are Unix seconds.

What is compared is the SHA-256 of what was shown (`config.keys` says why one SHA-256 is enough): the first
half finds the key, and the whole is compared in constant time. Nothing here knows a key, only its hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NamedTuple

from registry.capability import ENDPOINTS, TUNNELS
from router.ports import Refusal

REALM: Final = ("WWW-Authenticate", 'Bearer realm="modelyard"')
BUSY_RETRY_AFTER: Final = 1.0
"""Seconds. A place is free when one of the key's own requests ends, which nobody can foresee: soon, then."""

MOST_SEEN: Final = 1024
"""Fields remembered; a key is shown in one or two ways, and beyond this all are learned anew."""

_AUTHENTICATION: Final = "authentication_error"
_PERMISSION: Final = "permission_error"
_HALF: Final = 16
_SHOWN: Final = 8
"""Models of an allow-list that a refusal names."""


class Need(IntEnum):
    """What a path asks of its caller."""

    NOTHING = 0
    """Whether the daemon is alive, and how to log in."""
    INFERENCE = 1
    """A model's answer: a key, of either scope, that may use the model, and a place among its requests."""
    READ = 2
    """Lists and counters that whoever asks models may see: a key or a session of either scope."""
    ADMIN = 3
    """Everything else: a key or a session of the admin scope."""


_INFERENCE: Final = Need.INFERENCE
_ADMIN: Final = Need.ADMIN
"""Names of this module: a look-up in the enumeration costs as much as one in a dictionary of keys."""

NEEDS: Final[Mapping[str, Need]] = {
    **dict.fromkeys((*ENDPOINTS, *TUNNELS), Need.INFERENCE),
    **dict.fromkeys(("/", "/health", "/ready", "/login", "/logout"), Need.NOTHING),
    **dict.fromkeys(("/metrics", "/openapi.json", "/v1/models", "/models", "/api/session"), Need.READ),
    # The API that was there before: `generate` is counted as the inference request it becomes.
    **dict.fromkeys(("/api/v1/inference/generate", "/api/v1/inference/status"), Need.READ),
}
_STATIC: Final = re.compile(r"/static/[A-Za-z0-9_-][A-Za-z0-9._-]*")


def need_of(path: str) -> Need:
    """What *path* (without a query) asks of its caller; a path nobody thought of asks for the admin scope.

    Below `/v1/`, `/models/` and `/responses/` there is nothing an administrator has to himself, so that a
    program that tries an endpoint we lack reads "not found" there and not "forbidden". The control app asks
    again about the route it really takes, so nothing is won by a path that is read in two ways.
    """
    need = NEEDS.get(path)
    if need is not None:
        return need
    if path.startswith(("/v1/", "/models/", "/responses/")):
        return Need.READ
    return Need.NOTHING if _STATIC.fullmatch(path) else Need.ADMIN


# -- refusals --------------------------------------------------------------------------------------


def _unauthorized(code: str, message: str) -> Refusal:
    return Refusal(401, code, message, _AUTHENTICATION, headers=(REALM,))


MISSING: Final = _unauthorized(
    "missing_api_key",
    "this daemon wants a key: send it as `Authorization: Bearer KEY` or `x-api-key: KEY` (the modelyard "
    "command takes it from $MODELYARD_API_KEY); `modelyard key add NAME` on its machine makes one",
)
UNKNOWN: Final = _unauthorized(
    "invalid_api_key", "this key is not known here: it was mistyped, revoked, or is another server's"
)
NEEDS_ADMIN: Final = Refusal(
    403,
    "scope_missing",
    "this key may ask models and no more: this takes a key of the admin scope "
    "(`modelyard key add NAME --scope admin`)",
    _PERMISSION,
)
LOG_IN: Final = Refusal(
    303, "login_required", "log in first", _AUTHENTICATION, headers=(("Location", "/login"),)
)
"""For a browser that asks for the page."""


def _expired(name: str) -> Refusal:
    return _unauthorized("key_expired", f"the key {name} has expired: `modelyard key add` makes another")


def _too_many(name: str, most: int) -> Refusal:
    return Refusal(
        429,
        "key_busy",
        f"the key {name} has its {most} requests in flight already; try again when one has ended",
        "rate_limit_error",
        retry_after=BUSY_RETRY_AFTER,
    )


def _too_often(name: str, most: int, wait: float) -> Refusal:
    return Refusal(
        429,
        "key_rate_limited",
        f"the key {name} has asked {most} times within a minute; try again in {max(1, round(wait))} s",
        "rate_limit_error",
        retry_after=max(BUSY_RETRY_AFTER, wait),
    )


# -- keys ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept: everything but the key."""

    name: str
    digest: bytes
    """SHA-256 of it."""
    admin: bool = False
    models: frozenset[str] | None = None
    """Ids it may use; None: all."""
    concurrency: int | None = None
    priority: int = 0
    """Added to the model's for its requests."""
    requests_per_minute: int | None = None
    expires: float | None = None
    source: str = ""
    """Where it is written: `config`, or `file`."""


@dataclass(slots=True)
class Use:
    """How a key is used; outlives the reading of a changed keys file, as the requests in flight do."""

    in_flight: int = 0
    """Inference requests."""
    last_used: float | None = None
    tokens: float = 0.0
    """Requests it may still make at `filled`, where their rate is bounded."""
    filled: float = float("-inf")

    def wait(self, per_minute: int, now: float) -> float:
        """0 and one request counted, or seconds until there is room for one: a bucket of a minute's
        requests that fills steadily, so that no minute sees twice as many."""
        elapsed = now - self.filled
        tokens = self.tokens
        if elapsed > 0:  # the wall clock may have been set back
            tokens += elapsed * per_minute / 60
            if tokens > per_minute:
                tokens = float(per_minute)
        self.filled = now
        if tokens < 1:
            self.tokens = tokens
            return (1 - tokens) * 60 / per_minute
        self.tokens = tokens - 1
        return 0.0


class KeyHolder:
    """`router.ports.Holder`: one key, in one of the ways it can let a request in."""

    __slots__ = ("_counts", "_grant", "admin", "by_cookie", "inner", "key", "priority")

    def __init__(self, grant: Grant, *, counts: bool = False, by_cookie: bool = False) -> None:
        self._grant = grant
        self._counts = counts
        self.key = grant.key.name
        self.admin = grant.key.admin
        self.by_cookie = by_cookie
        self.inner = grant.inner
        self.priority = grant.key.priority

    def __repr__(self) -> str:
        return f"<KeyHolder {self.key} admin={self.admin} by_cookie={self.by_cookie}>"

    def may_use(self, model: str) -> bool:
        """*model* is among those the key is for."""
        models = self._grant.key.models
        return models is None or model in models

    def objects_to(self, model: str) -> Refusal | None:
        """The 403 for a model that is not; None for one that is."""
        models = self._grant.key.models
        if models is None or model in models:
            return None
        known = sorted(models)
        allowed = ", ".join(known[:_SHOWN]) + (" …" if len(known) > _SHOWN else "") or "none"
        message = f"the key {self.key} may not use {model}; the models it may use: {allowed}"
        return Refusal(403, "model_not_allowed", message, _PERMISSION, param="model")

    def leave(self) -> None:
        """The request is over: its place is free."""
        if self._counts:
            self._grant.use.in_flight -= 1


class Grant:
    """A key in force."""

    __slots__ = ("by_cookie", "counted", "inner", "key", "plain", "use")

    def __init__(self, key: Key, use: Use, inner: str) -> None:
        self.key = key
        self.use = use
        self.inner = inner
        self.counted = KeyHolder(self, counts=True)
        self.plain = KeyHolder(self)
        self.by_cookie = KeyHolder(self, by_cookie=True)

    def __repr__(self) -> str:
        return f"<Grant {self.key.name} in_flight={self.use.in_flight}>"

    def enter(self, need: Need, now: float) -> KeyHolder | Refusal:
        """Let a request of that need in, or say why not."""
        key, use = self.key, self.use
        if key.expires is not None and key.expires <= now:
            return _expired(key.name)
        use.last_used = now
        if need is _INFERENCE:
            if key.concurrency is not None and use.in_flight >= key.concurrency:
                return _too_many(key.name, key.concurrency)
            if key.requests_per_minute is not None:
                wait = use.wait(key.requests_per_minute, now)
                if wait:
                    return _too_often(key.name, key.requests_per_minute, wait)
            use.in_flight += 1
            return self.counted
        if need is _ADMIN and not key.admin:
            return NEEDS_ADMIN
        return self.plain


class Keyring:
    """The keys in force at one time; replaced as a whole."""

    __slots__ = ("_table", "grants", "seen")

    def __init__(self, grants: Iterable[Grant]) -> None:
        self.grants = {grant.key.name: grant for grant in grants}
        self.seen: dict[bytes, Grant] = {}
        """By SHA-256 of a whole header field that showed it."""
        self._table: dict[bytes, tuple[bytes, Grant]] = {}
        """By the first half of the hash, which no two keys share: the whole hash, and the key."""
        for grant in self.grants.values():
            # What the daemon shows to itself on behalf of a key is found like any other.
            for digest in (sha256(grant.inner.encode()).digest(), grant.key.digest):
                self._table[digest[:_HALF]] = (digest, grant)

    def __len__(self) -> int:
        return len(self.grants)

    def find(self, digest: bytes) -> Grant | None:
        """The key whose hash is *digest*."""
        row = self._table.get(digest[:_HALF])
        return row[1] if row is not None and compare_digest(row[0], digest) else None

    def remember(self, mark: bytes, grant: Grant) -> None:
        """The field of that hash shows that key."""
        if len(self.seen) >= MOST_SEEN:
            self.seen.clear()
        self.seen[mark] = grant


class Shown(NamedTuple):
    """A key that a request shows."""

    field: bytes
    """The whole field it stands in."""
    key: bytes


def shown_key(headers: Mapping[bytes, bytes]) -> Shown | None:
    """The key a request shows: a bearer token, else `x-api-key`; None without either.

    Another scheme of Authorization (a proxy's Basic) is none of ours and hides no `x-api-key`.
    """
    field = headers.get(b"authorization")
    if field is not None and field[:7].lower() == b"bearer ":
        return Shown(field, field[7:].strip())
    field = headers.get(b"x-api-key")
    return None if field is None else Shown(field, field)
