"""The front's own refusals: what it answers itself, before or instead of an engine. Codes are stable."""

from __future__ import annotations

from router.ports import Refusal

_AGAIN = 10.0
"""Seconds until another try where nobody knows better: three tries with 5 s of patience see a load of 30 s
end."""
_LONGEST_AGAIN = 60.0
"""SDKs ignore a longer Retry-After."""


class RefusedError(Exception):
    """Carries a refusal up to the place that answers."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def bad_request(message: str, *, code: str = "bad_request", param: str | None = None) -> Refusal:
    """400: the client's fault."""
    return Refusal(400, code, message, param=param)


def body_too_large(limit: int) -> Refusal:
    """413: one request's body is above the limit."""
    return Refusal(
        413, "body_too_large", f"the request body is above the limit of {limit} bytes (limits.body_bytes)"
    )


def buffer_full(model: str | None) -> Refusal:
    """429 for one model's share, 503 for the whole: bodies of waiting requests fill their buffer."""
    if model is not None:
        message = (
            f"requests that wait for {model} hold as many bytes of body as one model may; try again later"
        )
        return Refusal(429, "buffer_full", message, "rate_limit_error", retry_after=5.0)
    message = "requests that wait hold as many bytes of body as the router may; try again later"
    return Refusal(503, "buffer_full", message, "server_error", retry_after=5.0)


def head_too_large(limit: int) -> Refusal:
    """431: more header bytes than we read."""
    return Refusal(
        431, "header_too_large", f"the request head is above the limit of {limit} bytes (limits.header_bytes)"
    )


def too_slow(what: str, seconds: float) -> Refusal:
    """408: the client did not finish sending in time."""
    return Refusal(408, "request_timeout", f"the request's {what} did not arrive within {seconds:g} s")


def too_many_connections(limit: int) -> Refusal:
    """503: no room for another client."""
    message = f"the router has its limit of {limit} client connections open (limits.connections)"
    return Refusal(503, "too_many_connections", message, "server_error", retry_after=1.0)


def too_many_of_client(client: str, limit: int) -> Refusal:
    """503: one client has its share."""
    message = f"{client} has its limit of {limit} connections open (limits.connections_per_client)"
    return Refusal(503, "too_many_connections", message, "server_error", retry_after=1.0)


def encoded_body(coding: str) -> Refusal:
    """415: compressed request bodies."""
    message = f"request bodies with Content-Encoding {coding} are not taken; send the body as it is"
    return Refusal(415, "unsupported_encoding", message)


def websocket() -> Refusal:
    """501: only `/v1/realtime` is tunnelled."""
    return Refusal(501, "websocket_unsupported", "WebSocket is not supported on this path")


def not_by_session() -> Refusal:
    """401: a browser that is logged in asks an engine."""
    message = "a session of the status page asks no engine: send a key as `Authorization: Bearer KEY`"
    return Refusal(401, "missing_api_key", message, "authentication_error")


def path_not_passed(model: str, path: str) -> Refusal:
    """403: a path of an engine that is not asked from outside."""
    message = (
        f"{path[:200]!r} of {model}'s engine is not passed on: only what answers, and what it says of itself;"
        " docs/reference/http-api.md says which. Load and unload with /api/models"
    )
    return Refusal(403, "path_not_passed", message, "permission_error")


def slash_missing(target: str) -> Refusal:
    """307: to the page that relative links of an engine's start from."""
    return Refusal(307, "slash_missing", f"it is at {target[:200]}", headers=(("location", target),))


def response_unknown(response: str) -> Refusal:
    """404: nobody here is known to have it, or it is another key's."""
    message = (
        f"no response {response[:128]!r} is known here: it was made with another key, or before this daemon"
        " started, or too many have been made since; send the conversation again"
    )
    return Refusal(404, "response_not_found", message, param="response_id")


def response_gone(response: str, model: str) -> Refusal:
    """404: the process that had it has ended."""
    message = (
        f"the engine of {model} that made {response[:128]!r} has stopped since, and its responses with it; "
        "nothing was started for it: send the conversation again"
    )
    return Refusal(404, "response_gone", message, param="response_id")


def method_unsupported(method: str) -> Refusal:
    """501: CONNECT and TRACE."""
    return Refusal(501, "method_unsupported", f"{method} is not supported: this is not a forward proxy")


def engine_unreachable(model: str, why: str) -> Refusal:
    """502: no connection to an instance, twice."""
    message = (
        f"the engine of {model} does not take connections: {why}; its log says more (modelyard ps, /status)"
    )
    return Refusal(502, "engine_unreachable", message, "server_error", retry_after=1.0)


def engine_crashed(model: str) -> Refusal:
    """502: the same request was in flight when the engine went away, twice."""
    message = (
        f"the engine of {model} went away twice while it worked on this request, without a byte of an "
        "answer; the request will not be tried again"
    )
    return Refusal(502, "engine_crashed", message, "server_error")


def unloaded(model: str) -> Refusal:
    """503: an operator stopped the model while it worked on this request."""
    message = f"{model} was unloaded by the operator before it answered"
    return Refusal(503, "shutting_down", message, "server_error", retry_after=5.0)


def bad_answer(model: str, why: str) -> Refusal:
    """502: the engine answered something that cannot be passed on."""
    message = f"the answer of {model}'s engine cannot be passed on: {why}"
    return Refusal(502, "bad_answer", message, "server_error")


def answer_cut(model: str) -> Refusal:
    """502 or an error event: the answer ended before its end."""
    message = f"the engine of {model} ended the answer before it was complete; what was sent is not all of it"
    return Refusal(502, "answer_cut", message, "server_error")


def first_byte_timeout(model: str, seconds: float) -> Refusal:
    """504: the engine took the request and said nothing."""
    message = (
        f"the engine of {model} did not begin its answer within {seconds:g} s (limits.first_byte_timeout)"
    )
    return Refusal(504, "first_byte_timeout", message, "server_error")


def answer_timeout(seconds: float) -> Refusal:
    """504 or an error event: the whole answer took too long."""
    message = f"the answer was not complete within {seconds:g} s (limits.answer_timeout)"
    return Refusal(504, "answer_timeout", message, "server_error")


def tunnel_idle(seconds: float) -> Refusal:
    """For the log: nothing passed a WebSocket for too long."""
    return Refusal(408, "tunnel_idle", f"nothing passed for {seconds:g} s (limits.tunnel_idle)")


def still_loading(model: str, note: str, ready_in: float | None) -> Refusal:
    """503: said before the client tires of waiting in silence; the load goes on."""
    message = (
        f"{model} is not ready yet ({note}); it goes on loading: try again then, or ask with stream: true,"
        " which is told of the progress"
    )
    again = _AGAIN if ready_in is None else min(max(ready_in, 1.0), _LONGEST_AGAIN)
    return Refusal(503, "model_loading", message, "server_error", retry_after=again)


def shutting_down() -> Refusal:
    """503: the daemon stops."""
    return Refusal(503, "shutting_down", "the router is shutting down", "server_error", retry_after=5.0)


def internal() -> Refusal:
    """500: our own fault; the log has the rest."""
    return Refusal(
        500, "internal_error", "the router failed on this request; its log has the details", "server_error"
    )
