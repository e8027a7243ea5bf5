"""Keeping a client alive while its model loads, in its own protocol. Pure.

A streaming client gets its 200 and SSE comments (Anthropic's: `ping` events) from the first pause on;
whatever goes wrong afterwards is an error event. A client that does not stream waits: a 200 could not be
taken back.
"""

from __future__ import annotations

from router.answer_head import status_line
from router.chunks import LAST_CHUNK, chunk
from router.openai import Face
from router.ports import Refusal


class Beats:
    """Signs of life for one streaming client. The first one commits to a stream."""

    __slots__ = ("_close", "_face", "_minor", "_request_id", "committed")

    def __init__(self, face: Face, *, minor: int, request_id: str, close: bool) -> None:
        self._face = face
        self._minor = minor
        self._request_id = request_id
        self._close = close
        self.committed = False
        """The client has been sent a 200 and the beginning of an event stream."""

    def beat(self, note: str) -> bytes:
        """What to send now; *note* is for people."""
        event = self._face.beat(note)
        out = chunk(event) if self._minor else event
        if not self.committed:
            self.committed = True
            out = self._head() + out
        return out

    def end(self, refusal: Refusal) -> bytes:
        """What to send where a refusal comes too late for a status: an error event, and a proper end."""
        event = self._face.error_event(refusal)
        return chunk(event) + LAST_CHUNK if self._minor else event

    def _head(self) -> bytes:
        parts = [
            status_line(200),
            b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-request-id: ",
            self._request_id.encode(),
            b"\r\n",
        ]
        if self._minor:
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"connection: close\r\n\r\n" if self._close else b"\r\n")
        return b"".join(parts)
