"""Who may come in: the front's `Authorizer`, and what the control app asks about keys and sessions.

Off (no keys), everybody who reaches the port is let in, and a call costs one attribute. On, a head that was
seen before carries what its key was found to be; a field in a new head costs one SHA-256 and a lookup. Fields
are remembered by that hash, never as they are, and in the `Keyring` itself: keys that change are a new ring,
which remembers nothing and believes no head.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from router.keys import (
    LOG_IN,
    MISSING,
    NEEDS,
    NEEDS_ADMIN,
    UNKNOWN,
    Grant,
    Key,
    KeyHolder,
    Keyring,
    Need,
    Use,
    need_of,
    shown_key,
)
from router.ports import Asking, Holder, Refusal
from router.sessions import Sessions

NOTHING: Final = Need.NOTHING
LONGEST_KEY: Final = 512
"""Bytes of a key typed into the login page; ours have 47."""


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key in force, for people."""

    name: str
    scope: str
    models: tuple[str, ...] | None
    concurrency: int | None
    expires_at: float | None
    source: str
    in_flight: int
    last_used_at: float | None


class _Known(NamedTuple):
    """What a head shows and asks for; good for as long as the ring is in force."""

    ring: Keyring
    grant: Grant
    need: Need


class Auth:
    """Satisfies `router.ports.Authorizer`. Belongs to the event loop's thread; off until `publish`."""

    def __init__(
        self, *, wall: Callable[[], float], secret: bytes | None = None, cookie: str = "modelyard"
    ) -> None:
        """*wall* gives Unix seconds. *secret* signs the sessions; unset, it is a fresh one."""
        self._wall = wall
        self._ring: Keyring | None = None
        self.sessions = Sessions(secret or secrets.token_bytes(32), cookie=cookie)

    @classmethod
    def off(cls) -> Auth:
        """One that lets everybody in."""
        return cls(wall=lambda: 0.0)

    def __repr__(self) -> str:
        return "<Auth off>" if self._ring is None else f"<Auth keys={len(self._ring)}>"

    @property
    def on(self) -> bool:
        """Nobody gets in without a key."""
        return self._ring is not None

    def publish(self, keys: Iterable[Key] | None) -> frozenset[str]:
        """These are the keys from now on; None switches keys off, no keys at all let nobody in.

        Returns the names that are gone or may do other things now. What they have in flight goes on.
        """
        old = {} if self._ring is None else self._ring.grants
        if keys is None:
            self._ring = None
            return frozenset()
        grants = []
        for key in keys:
            before = old.get(key.name)
            if before is not None and before.key.digest == key.digest:
                grants.append(Grant(key, before.use, before.inner))
            else:
                grants.append(Grant(key, Use(), f"inner-{secrets.token_urlsafe(32)}"))
        ring = self._ring = Keyring(grants)
        return frozenset(
            name for name, was in old.items() if name not in ring.grants or ring.grants[name].key != was.key
        )

    def __call__(self, head: Asking) -> Holder | Refusal | None:
        """See `router.ports.Authorizer`."""
        ring = self._ring
        if ring is None:
            return None
        known = head.known
        if known is not None and type(known) is _Known and known.ring is ring:
            return known.grant.enter(known.need, self._wall())
        headers, path = head.headers, head.path
        need = NEEDS.get(path)
        if need is None:
            need = need_of(path)
        if need is NOTHING:
            return None
        field = headers.get(b"authorization") or headers.get(b"x-api-key")
        if field is not None:
            grant = ring.seen.get(sha256(field).digest())
            if grant is not None:
                head.known = _Known(ring, grant, need)
                return grant.enter(need, self._wall())
        shown = shown_key(headers)
        if shown is None:
            return self._by_cookie(headers, path, need)
        grant = ring.find(sha256(shown.key).digest())
        if grant is None:
            return UNKNOWN
        if shown.field is field:
            ring.remember(sha256(field).digest(), grant)
        return grant.enter(need, self._wall())

    def _by_cookie(self, headers: Mapping[bytes, bytes], path: str, need: Need) -> KeyHolder | Refusal:
        # A session never asks a model: pages of other programs on this host (another port is the same site)
        # can make a browser send it, and an inference request is not the control app's to check.
        grant = None if need is Need.INFERENCE else self._session(headers.get(b"cookie", b""))
        if grant is None:
            asks_page = path == "/status" and b"text/html" in headers.get(b"accept", b"")
            return LOG_IN if asks_page else MISSING
        verdict = grant.enter(need, self._wall())
        return verdict if isinstance(verdict, Refusal) else grant.by_cookie

    def _session(self, field: bytes) -> Grant | None:
        ring, value = self._ring, self.sessions.value_in(field)
        if ring is None or value is None:
            return None

        def digest_of(name: str) -> bytes | None:
            grant = ring.grants.get(name)
            return None if grant is None else grant.key.digest

        name = self.sessions.name_in(value, digest_of, self._wall())
        return None if name is None else ring.grants[name]

    # -- for the control app -----------------------------------------------------------------------

    def objects_to(self, holder: Holder | None, route: str) -> Refusal | None:
        """Why *holder* may not take a *route* of the control app; None if it may. Off: always None."""
        if self._ring is None:
            return None
        need = need_of(route)
        if need is Need.NOTHING:
            return None
        if holder is None:
            return MISSING
        return NEEDS_ADMIN if need is Need.ADMIN and not holder.admin else None

    def log_in(self, shown: str) -> tuple[str, str] | Refusal:
        """(name of the key, value of the cookie) for an admin's key; else why not."""
        ring = self._ring
        raw = shown.strip().encode()
        grant = None if ring is None or len(raw) > LONGEST_KEY else ring.find(sha256(raw).digest())
        if grant is None:
            return UNKNOWN
        now = self._wall()
        verdict = grant.enter(Need.ADMIN, now)
        if isinstance(verdict, Refusal):
            return verdict
        return grant.key.name, self.sessions.issue(grant.key.name, grant.key.digest, now)

    def names(self) -> tuple[str, ...]:
        """Of the keys in force."""
        return () if self._ring is None else tuple(self._ring.grants)

    def views(self) -> tuple[KeyView, ...]:
        """The keys in force, by name."""
        if self._ring is None:
            return ()
        return tuple(_view(grant) for _, grant in sorted(self._ring.grants.items()))


def _view(grant: Grant) -> KeyView:
    key, use = grant.key, grant.use
    return KeyView(
        name=key.name,
        scope="admin" if key.admin else "inference",
        models=None if key.models is None else tuple(sorted(key.models)),
        concurrency=key.concurrency,
        expires_at=key.expires,
        source=key.source,
        in_flight=use.in_flight,
        last_used_at=use.last_used,
    )
