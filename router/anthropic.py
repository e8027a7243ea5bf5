"""Anthropic's forms: the error envelope and the events of a stream. Pure."""

from __future__ import annotations

import msgspec

from router.ports import Refusal

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
"""What Anthropic itself sends while nothing else can be."""

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
          404: "not_found_error", 413: "request_too_large", 422: "invalid_request_error",
          429: "rate_limit_error", 503: "overloaded_error", 529: "overloaded_error"}  # fmt: skip


def _error(refusal: Refusal) -> bytes:
    kind = _TYPES.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "api_error")
    error = {"type": kind, "message": refusal.message, "code": refusal.code}
    return msgspec.json.encode({"type": "error", "error": error})


def error_body(refusal: Refusal) -> bytes:
    """`{"type": "error", "error": {type, message}}`, with our stable code beside them."""
    return _error(refusal)


def error_event(refusal: Refusal) -> bytes:
    """An `error` event."""
    return b"event: error\ndata: " + _error(refusal) + b"\n\n"
