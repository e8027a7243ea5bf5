"""OpenAI's forms: the error envelope, errors inside a stream, what engines call an error. Pure."""

from __future__ import annotations

import msgspec

from registry.capability import Protocol as ApiProtocol
from router import anthropic
from router.ports import Refusal

_encode = msgspec.json.encode


def error_body(refusal: Refusal) -> bytes:
    """`{"error": {message, type, param, code}}`."""
    error = {"message": refusal.message, "type": refusal.type, "param": refusal.param, "code": refusal.code}
    return _encode({"error": error})


def error_event(refusal: Refusal) -> bytes:
    """An error inside a chat or completions stream: OpenAI's clients raise it as an API error."""
    return b"data: " + error_body(refusal) + b"\n\n"


def responses_error_event(refusal: Refusal) -> bytes:
    """The `error` event of the Responses API."""
    event = {"type": "error", "code": refusal.code, "message": refusal.message, "param": refusal.param}
    return b"event: error\ndata: " + _encode({**event, "sequence_number": 0}) + b"\n\n"


def comment(note: str) -> bytes:
    """An SSE comment: every client skips it, and no proxy on the way thinks us dead."""
    return b": " + " ".join(note.split()).encode() + b"\n\n"


class Face:
    """How one protocol says an error, an error inside a stream, and `still here`."""

    __slots__ = ("protocol",)

    def __init__(self, protocol: ApiProtocol) -> None:
        self.protocol = protocol

    def error_body(self, refusal: Refusal) -> bytes:
        """The body of a refusal."""
        if self.protocol is ApiProtocol.ANTHROPIC:
            return anthropic.error_body(refusal)
        return error_body(refusal)

    def error_event(self, refusal: Refusal) -> bytes:
        """A refusal after the 200 was sent."""
        if self.protocol is ApiProtocol.ANTHROPIC:
            return anthropic.error_event(refusal)
        if self.protocol is ApiProtocol.RESPONSES:
            return responses_error_event(refusal)
        return error_event(refusal)

    def beat(self, note: str) -> bytes:
        """Sent while nothing else can be."""
        if self.protocol is ApiProtocol.ANTHROPIC:
            return anthropic.PING
        return comment(note)

    def thought(self, note: str, *, model: str) -> bytes:
        """The same as a piece of *model*'s reasoning, where the protocol has one: chat completions."""
        if self.protocol is not ApiProtocol.OPENAI:
            return self.beat(note)
        choice = {"index": 0, "delta": {"reasoning_content": note + "\n"}, "finish_reason": None}
        event = {"id": "chatcmpl-loading", "object": "chat.completion.chunk", "created": 0, "model": model}
        return b"data: " + _encode({**event, "choices": [choice]}) + b"\n\n"

    def is_enveloped(self, body: bytes) -> bool:
        """*body* is this protocol's own error envelope already and may pass as it is."""
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        error = value.get("error") if isinstance(value, dict) else None
        if not (isinstance(error, dict) and isinstance(error.get("message"), str)):
            return False
        return self.protocol is not ApiProtocol.ANTHROPIC or value.get("type") == "error"


FACES = {protocol: Face(protocol) for protocol in ApiProtocol}
"""One per protocol."""

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


def refusal_of(status: int, body: bytes) -> Refusal:
    """What an engine's error answer means, whatever its shape.

    Known shapes: OpenAI's and Anthropic's envelope, FastAPI's `{"detail": text | list}`, mlx_lm.server's
    `{"error": text}`, vLLM's bare `{"object": "error", "message": …}`, and plain text.
    """
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code, param, message = "engine_error", None, ""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = None
        message = " ".join(body.decode("utf-8", "replace").split())
    if isinstance(value, dict):
        error = value.get("error", value)
        if isinstance(error, dict):
            found = error.get("message", error.get("detail", error.get("msg")))
            message = _text(found)
            kind = error["type"] if isinstance(error.get("type"), str) and "message" in error else kind
            code = str(error["code"]) if isinstance(error.get("code"), str | int) else code
            param = error["param"] if isinstance(error.get("param"), str) else None
        else:
            message = _text(error)
    elif isinstance(value, str):
        message = value
    return Refusal(
        status, code, message[:4000] or f"the engine answered {status} without a word", kind, param=param
    )


def _text(found: object) -> str:
    """A message out of text, or out of FastAPI's list of validation errors."""
    if isinstance(found, str):
        return found
    if found is None:
        return ""
    if isinstance(found, list):
        parts = []
        for item in found:
            if isinstance(item, dict) and isinstance(item.get("msg"), str):
                where = ".".join(str(part) for part in item.get("loc", ()) or ())
                parts.append(f"{where}: {item['msg']}" if where else item["msg"])
        if parts:
            return "; ".join(parts)
    return _encode(found).decode()
