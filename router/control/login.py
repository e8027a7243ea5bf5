"""Logging in with a key from a browser, and what a page may know about its own session and about keys.

A form without script: a password store fills it in, and it works where scripts do not. The answer is a cookie
that scripts cannot read (HttpOnly), that no other site can make the browser send (SameSite=Strict), and that
stands for the key for `SESSION_SECONDS`. The key itself is not kept anywhere.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
import structlog
from aiohttp import web

from router.control.answers import HEADERS, json_answer
from router.control.deps import ControlDeps
from router.control.door import caller_of
from router.ports import Refusal
from router.sessions import SESSION_SECONDS

log = structlog.get_logger("modelyard.control")

AFTER: Final = "/status"
"""Where a browser goes on; never an address that came with the request."""
FORM: Final = Path(__file__).parent / "form"
FORM_BYTES: Final = 4096

_POLICY: Final = HEADERS["Content-Security-Policy"].replace("form-action 'none'", "form-action 'self'")
_SAID: Final = "<!-- said -->"


class Login:
    """The login page, the session and the list of keys."""

    def __init__(self, deps: ControlDeps) -> None:
        self._deps = deps
        self._auth = deps.auth

    def routes(self) -> list[web.RouteDef]:
        """What it serves."""
        return [
            web.get("/login", self.page),
            web.post("/login", self.log_in),
            web.post("/logout", self.log_out),
            web.get("/static/login.css", self.style),
            web.get("/api/session", self.session),
            web.get("/api/keys", self.keys),
        ]

    async def page(self, _: web.Request) -> web.Response:
        """The form; the status page where nobody needs to log in."""
        if not self._auth.on:
            raise web.HTTPFound(AFTER)
        return _form()

    async def style(self, _: web.Request) -> web.Response:
        """What the form looks like."""
        return web.Response(text=(FORM / "login.css").read_text(encoding="utf-8"), content_type="text/css")

    async def log_in(self, request: web.Request) -> web.Response:
        """Take the form's `key` and go on to the status page with a session, or show the form again."""
        if not self._auth.on:
            raise web.HTTPSeeOther(AFTER)
        verdict = self._auth.log_in(_key_in(await request.content.read(FORM_BYTES)))
        client = caller_of(request).client
        if isinstance(verdict, Refusal):
            log.warning("login_refused", client=client, code=verdict.code)
            return _form(verdict)
        key, value = verdict
        log.info("login_accepted", client=client, key=key)
        response = web.Response(status=303, headers={"Location": AFTER})
        self._set_cookie(request, response, value, SESSION_SECONDS)
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """Take the cookie back. The session itself ends with its time, or with its key."""
        response = web.Response(status=303, headers={"Location": "/login"})
        self._set_cookie(request, response, "", 0)
        return response

    async def session(self, request: web.Request) -> web.Response:
        """Who the caller is: `keys` says whether anybody needs one, `scope` what this one may do."""
        holder = caller_of(request).holder
        return json_answer(
            {
                "keys": self._auth.on,
                "key": None if holder is None else holder.key,
                "scope": "admin" if holder is None or holder.admin else "inference",
                "by_cookie": holder is not None and holder.by_cookie,
            }
        )

    async def keys(self, _: web.Request) -> web.Response:
        """The keys in force and what each has used since the daemon started; neither keys nor hashes."""
        used: dict[str, list[Mapping[str, Any]]] = {}
        for (key, model), row in sorted(self._deps.metrics.used_by_key().items()):
            used.setdefault(key, []).append({"model": model, **msgspec.to_builtins(row)})
        keys = [
            {**msgspec.to_builtins(view), "usage": used.get(view.name, [])} for view in self._auth.views()
        ]
        return json_answer({"on": self._auth.on, "keys": keys})

    def _set_cookie(self, request: web.Request, response: web.Response, value: str, seconds: float) -> None:
        response.set_cookie(
            self._auth.sessions.cookie,
            value,
            max_age=int(seconds),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=_came_by_tls(request),
        )


def _came_by_tls(request: web.Request) -> bool:
    """The browser spoke TLS, which a proxy took off: its own word, which only it would suffer from."""
    origin = request.headers.get("Origin", "")
    return origin.startswith("https://") or request.headers.get("X-Forwarded-Proto", "") == "https"


def _key_in(form: bytes) -> str:
    """The form's `key`; empty where it has none, or is not ours."""
    try:
        return parse_qs(form.decode("utf-8", "replace"), max_num_fields=8).get("key", [""])[0]
    except ValueError:
        return ""


def _form(refusal: Refusal | None = None) -> web.Response:
    # 2 KB that lie in the page cache: dearer to hand to a thread than to read.
    text = (FORM / "login.html").read_text(encoding="utf-8")
    said = "" if refusal is None else f'<p class="alarm" role="alert">{html.escape(refusal.message)}</p>'
    return web.Response(
        text=text.replace(_SAID, said),
        status=200 if refusal is None else refusal.status,
        content_type="text/html",
        headers={"Content-Security-Policy": _POLICY},
    )
