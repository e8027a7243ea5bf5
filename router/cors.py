"""Which web pages may ask models from a browser. Pure.

Without a word in the configuration, none may read an answer; and a page of another site may not make a
browser ask at all: a plain POST needs no leave of ours, and would load and use models for whoever is visited.
Programs send no Origin and are not affected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from registry.capability import ENDPOINTS
from router.heads import RequestHead
from router.ports import Refusal

MAX_AGE = 7200
"""Seconds a browser may remember our leave: the most that Chromium takes."""

_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))
PREFLIGHT: Final = "preflight"
"""Code of the answer to a browser that asks for leave: no refusal."""
_METHODS = "GET, POST, DELETE, OPTIONS"
_EXPOSED = b"x-request-id, retry-after, x-should-retry"


def _applies(path: str) -> bool:
    """The API for programs; status page and management are for their own pages only."""
    return path.startswith("/v1/") or path in ENDPOINTS


class Cors:
    """The origins that may."""

    __slots__ = ("_any", "_origins")

    def __init__(self, origins: Iterable[str]) -> None:
        """*origins* as browsers write them (`https://chat.example.com`); `*` is everybody."""
        given = {origin.strip().rstrip("/").lower() for origin in origins}
        self._any = "*" in given
        self._origins = frozenset(origin.encode() for origin in given - {"*"})

    def __repr__(self) -> str:
        return f"<Cors {'*' if self._any else sorted(self._origins)}>"

    def allows(self, origin: bytes) -> bool:
        """A page of *origin* may read answers."""
        return self._any or origin.lower() in self._origins

    def fields(self, head: RequestHead) -> bytes:
        """What an answer to *head* says besides; begins with CRLF if there is anything."""
        origin = head.headers.get(b"origin")
        if origin is None or not _applies(head.path) or not self.allows(origin):
            return b""
        return b"\r\naccess-control-allow-origin: %b\r\nvary: origin\r\naccess-control-expose-headers: %b" % (
            origin,
            _EXPOSED,
        )

    def verdict(self, head: RequestHead, *, inference: bool) -> Refusal | None:
        """What a request with an Origin is answered before anything else is looked at; None: nothing."""
        refusal = self._objects_to(head.headers) if inference else None
        return self._preflight(head) if refusal is None and head.method == b"OPTIONS" else refusal

    def _preflight(self, head: RequestHead) -> Refusal | None:
        """The answer to a browser that asks for leave; None where there is none to be given."""
        headers = head.headers
        origin = headers.get(b"origin")
        if origin is None or b"access-control-request-method" not in headers:
            return None
        if not _applies(head.path) or not self.allows(origin):
            return None
        wanted = headers.get(b"access-control-request-headers", b"*").decode("latin-1")
        fields = (
            ("access-control-allow-methods", _METHODS),
            ("access-control-allow-headers", wanted),
            ("access-control-max-age", str(MAX_AGE)),
        )
        return Refusal(204, "preflight", "", headers=fields)

    def _objects_to(self, headers: Mapping[bytes, bytes]) -> Refusal | None:
        """Why a browser's page of another site may not ask a model.

        Let in are: origins in the configuration, pages of this machine, pages under the name that was asked,
        and applications (whose origins are no web sites: `app://`, `tauri://`, extensions).
        """
        origin = headers.get(b"origin", b"")
        if not origin or self.allows(origin):
            return None
        text = origin.decode("latin-1")
        try:
            parts = urlsplit(text)
            name = parts.hostname
        except ValueError:
            parts, name = urlsplit(""), None
        # "null" is not let in: any site can put a page into a frame that has this origin.
        if parts.scheme not in ("http", "https", ""):
            return None
        authority = parts.netloc.lower().encode("latin-1", "replace")
        if name is not None and (name in _LOCAL or name.endswith(".localhost")):
            return None
        if authority and authority == headers.get(b"host", b"").lower():
            return None
        return Refusal(
            403,
            "cross_origin",
            f"a web page of {text[:100]!r} may not ask models here: name it under cors.origins",
            "permission_error",
        )
