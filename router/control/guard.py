"""Who may not talk to the control app: web pages of other sites. Pure.

A browser on this machine is a confused deputy: any page it shows can send requests to 127.0.0.1, and a page
whose name resolves to 127.0.0.1 (DNS rebinding) can read the answers as well. Programs are not affected.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from config.listening import SECURE, UNIX, reached_at
from router.ports import Refusal

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES: Final = frozenset({"same-origin", "none"})
_PERMISSION: Final = "permission_error"
CUSTOM_HEADER: Final = "X-Requested-With"
"""A page of another origin cannot send it without asking us first (CORS), and we never allow that."""


def _name(host: str) -> str:
    """The name in a Host header or an authority: no port, no brackets, no trailing dot, lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal() or ":" in name:
        name = host
    return name.rstrip(".").lower()


def is_loopback(host: str) -> bool:
    """True when *host* (with or without a port) names this machine and cannot be made to mean another."""
    name = _name(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Guard:
    """The checks, for a daemon that listens on certain addresses."""

    listen: tuple[str, ...]
    names: frozenset[str]
    """Further names that we answer to."""

    @classmethod
    def build(cls, listen: Iterable[str], names: Iterable[str]) -> Guard:
        """The guard for these listening addresses and further names."""
        return cls(tuple(listen), frozenset(_name(name) for name in names))

    def refuses(self, method: str, headers: Mapping[str, str], *, by_cookie: bool = False) -> Refusal | None:
        """Why a request with these headers is not let in; None if it is. Keys are looked up as `Host` etc.

        *by_cookie*: a browser's session speaks for it, which is never enough to change something.
        """
        host = headers.get("Host", "")
        refusal = self._refuses_host(host) or self._refuses_origin(method, host, headers)
        if refusal is None and by_cookie and method not in _SAFE_METHODS and CUSTOM_HEADER not in headers:
            message = (
                f"with a session, what changes something needs a {CUSTOM_HEADER} header; programs use a key"
            )
            return Refusal(403, "custom_header_missing", message, _PERMISSION)
        return refusal

    def _refuses_host(self, host: str) -> Refusal | None:
        # On other addresses people use names we cannot know; rebinding to a public address gains nothing.
        near = [is_loopback(address.removeprefix(SECURE)) for address in self.listen if address[:5] != UNIX]
        if not near or not all(near):
            return None
        if is_loopback(host) or _name(host) in self.names:
            return None
        return Refusal(
            403,
            "host_not_allowed",
            f"modelyard listens on loopback only and does not answer to {_name(host)[:100]!r}, because "
            "a web page could use that name to read what it must not. "
            f"Use {reached_at(self.listen[0])[0]}; behind a proxy, add the name to host_names in "
            "modelyard.yaml.",
            _PERMISSION,
        )

    def _refuses_origin(self, method: str, host: str, headers: Mapping[str, str]) -> Refusal | None:
        if method in _SAFE_METHODS:
            return None
        site = headers.get("Sec-Fetch-Site")
        origin = headers.get("Origin")
        if (site is None or site in _OWN_SITES) and (origin is None or self._is_own(origin, host)):
            return None
        return Refusal(
            403,
            "cross_origin",
            "a web page of another site may not change anything here. Use the status page of this daemon, "
            "the modelyard command, or a program.",
            _PERMISSION,
        )

    def _is_own(self, origin: str, host: str) -> bool:
        # A proxy may have taken TLS off, so the scheme says nothing; name and port must agree.
        authority = urlsplit(origin).netloc.lower()
        return bool(authority) and (authority == host.lower() or _name(authority) in self.names)
