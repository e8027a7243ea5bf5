"""Answers the front gives itself: a refusal in the envelope of the protocol it was asked in. Pure."""

from __future__ import annotations

import math

from router.answer_head import status_line
from router.openai import Face
from router.ports import Refusal


def refusal_answer(refusal: Refusal, face: Face, *, own: bytes, close: bool, bodyless: bool = False) -> bytes:
    """The whole answer, head and body; *bodyless* for HEAD; *own*: as `Relay`'s."""
    parts = [status_line(refusal.status), own]
    body = b""
    if refusal.status == 204:
        parts.append(b"\r\n")
    else:
        body = face.error_body(refusal)
        parts.append(b"\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(body))
    if refusal.retry_after is not None:
        parts.append(b"retry-after: %d\r\n" % max(1, math.ceil(refusal.retry_after)))
    parts += [f"{name}: {value}\r\n".encode("latin-1", "replace") for name, value in refusal.headers]
    parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    if not bodyless:
        parts.append(body)
    return b"".join(parts)
