"""Answers that are read whole, or in their beginning, before the client gets a byte of them. Pure."""

from __future__ import annotations

from enum import Enum

import msgspec

from router.answer_head import AnswerHead
from router.openai import Face, refusal_of

ERROR_LIMIT = 64 * 1024
"""Bytes of an error body that are read before its envelope is made."""
DOCUMENT_LIMIT = 1024 * 1024
"""Bytes of a JSON answer without a length that are read before anything is sent: only so can one that was cut
be told from a whole one."""

WHOLE_LIMIT = 4 * 1024 * 1024
"""Bytes of a JSON answer in which tool calls are looked for: a million tokens. A longer one just passes."""

_check = msgspec.json.Decoder(msgspec.Raw).decode


class Held(Enum):
    """Why an answer is held back."""

    ERROR = "error"
    """An engine's error, to be put into the protocol's envelope."""
    DOCUMENT = "document"
    """A JSON document that ends with the connection."""
    WHOLE = "whole"
    """A JSON document that is changed as a whole."""
    NAME = "name"
    """The beginning of a JSON document with a length, which the model's name in it will change."""
    EVENT = "event"
    """An error, and the client has been sent a 200: becomes an error event."""
    WRAP = "wrap"
    """No event stream, and the client was promised one: becomes one event."""


LIMITS = {
    Held.ERROR: ERROR_LIMIT,
    Held.DOCUMENT: DOCUMENT_LIMIT,
    Held.WHOLE: WHOLE_LIMIT,
    Held.NAME: ERROR_LIMIT,
    Held.EVENT: ERROR_LIMIT,
    Held.WRAP: DOCUMENT_LIMIT,
}


def why_held(
    head: AnswerHead, *, committed: bool, counted: bool, renamed: bool, whole: bool = False
) -> Held | None:
    """Whether an engine's answer with *head* must be held.

    *committed*: a 200 was sent already; *counted*: it has a Content-Length; *renamed*: its model's name
    changes; *whole*: all of it may change.
    """
    if committed:
        if head.status != 200:
            return Held.EVENT
        return None if head.is_events else Held.WRAP
    if head.status >= 400:
        return Held.ERROR
    if not head.is_json:
        return None
    if whole:
        return Held.WHOLE
    if counted:
        return Held.NAME if renamed else None
    return None if head.chunked else Held.DOCUMENT


def in_envelope(head: AnswerHead, face: Face, body: bytes) -> tuple[bytes, bytes]:
    """(fields, body) of an engine's error in *face*'s envelope."""
    if face.is_enveloped(body):
        return head.fields, body
    fields = head.untyped_fields() + b"content-type: application/json\r\n"
    return fields, face.error_body(refusal_of(head.status, body))


def as_events(body: bytes) -> bytes:
    """A JSON document as the one event of a stream."""
    event = b"".join(b"data: " + line + b"\n" for line in body.splitlines())
    return event + b"\ndata: [DONE]\n\n"


def is_document(body: bytes) -> bool:
    """*body* is one whole JSON document."""
    try:
        _check(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
