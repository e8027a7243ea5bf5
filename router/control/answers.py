"""How control answers: JSON, text and refusals, with the headers every answer carries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from router.errors import BadQueryError
from router.openai import error_body
from router.ports import Refusal

HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: with that, a browser sends the login form with `Origin: null`, like any foreign page's.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer. The page needs nothing but its own script and style, so nothing else is allowed."""


def json_answer(data: Any, *, status: int = 200, pretty: bool = False) -> web.Response:
    """*data* as JSON; *pretty* for what people fetch with curl. What JSON does not know is shown as text."""
    body = msgspec.json.encode(data, enc_hook=str)
    if pretty:
        body = msgspec.json.format(body, indent=2) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")


def refused(refusal: Refusal, *, allow: str | None = None) -> web.Response:
    """*refusal* in OpenAI's envelope."""
    response = web.Response(
        body=error_body(refusal),
        status=refusal.status,
        content_type="application/json",
        headers=refusal.headers,
    )
    if refusal.retry_after is not None:
        # Rounded up: a client that comes a moment early is refused again.
        response.headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after)))
    if allow is not None:
        response.headers["Allow"] = allow
    return response


def wants_html(request: web.Request) -> bool:
    """True for a browser; `?format=json` and `?format=html` overrule what it accepts."""
    wanted = request.query.get("format")
    if wanted is not None:
        if wanted not in ("json", "html"):
            raise BadQueryError(f"format={wanted!r} is not known: write format=json or format=html")
        return wanted == "html"
    return "text/html" in request.headers.get("Accept", "")


def flag(request: web.Request, name: str, *, default: bool = False) -> bool:
    """The query parameter *name* as yes or no; `?force` alone means yes. Raises BadQueryError."""
    text = request.query.get(name)
    if text is None:
        return default
    if text.lower() in ("", "1", "true", "yes"):
        return True
    if text.lower() in ("0", "false", "no"):
        return False
    raise BadQueryError(f"{name}={text!r} is not understood: write {name}=1 or {name}=0")


def number(request: web.Request, name: str, *, default: int, most: int) -> int:
    """The query parameter *name* as a whole number of 1 to *most*. Raises BadQueryError."""
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text[:20]) <= most:
        raise BadQueryError(f"{name}={text[:40]!r} is not understood: write a whole number from 1 to {most}")
    return int(text)
