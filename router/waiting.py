"""Keeping a client alive while its model loads, in its own protocol. Pure.

A streaming client gets its 200 and SSE comments (Anthropic's: `ping` events) from the first pause on;
whatever goes wrong afterwards is an error event. In Responses streams the signs are comments too: an event of
theirs would announce an answer with an id that is not the engine's. A client that does not stream waits in
silence, for a 200 could not be taken back; unless white space before the document is switched on.
"""

from __future__ import annotations

from registry.capability import Endpoint
from router.answer_head import status_line
from router.chunks import LAST_CHUNK, chunk
from router.openai import Face
from router.plan import Plan
from router.ports import FrontLimits, Refusal


class Beats:
    """Signs of life for one streaming client. The first one commits to a stream."""

    __slots__ = ("_close", "_face", "_minor", "_own", "_said", "committed", "plain", "reasoning")

    def __init__(self, face: Face, *, minor: int, own: bytes, close: bool, plain: bool = False) -> None:
        """*own*: as `Relay`'s. *plain*: the client reads one JSON document."""
        self._face = face
        self._minor = minor
        self._own = own
        self._close = close
        self._said = ""
        self.plain = plain
        self.committed = False
        """The client has been sent a 200 and the beginning of an event stream, or of a document."""
        self.reasoning = ""
        """The model's name: what is said is said as its reasoning, for people to see."""

    def beat(self, note: str) -> bytes:
        """What to send now; *note* is for people."""
        if self.plain:
            event = b" "
        elif self.reasoning and note != self._said:
            self._said = note
            event = self._face.thought(note, model=self.reasoning)
        else:
            event = self._face.beat(note)
        out = chunk(event) if self._minor else event
        if not self.committed:
            self.committed = True
            out = self._head() + out
        return out

    def end(self, refusal: Refusal) -> bytes:
        """What to send where a refusal comes too late for a status: an error event, and a proper end."""
        event = self._face.error_body(refusal) if self.plain else self._face.error_event(refusal)
        return chunk(event) + LAST_CHUNK if self._minor else event

    def _head(self) -> bytes:
        kind = b"application/json" if self.plain else b"text/event-stream; charset=utf-8"
        fields = b"content-type: %b\r\ncache-control: no-cache\r\n" % kind
        parts = [status_line(200), fields, self._own, b"\r\n"]
        if self._minor:
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"connection: close\r\n\r\n" if self._close else b"\r\n")
        return b"".join(parts)


def beats_for(
    planned: Plan, endpoint: Endpoint, face: Face, limits: FrontLimits, *, minor: int, own: bytes, close: bool
) -> Beats | None:
    """Signs of life for a request that waits; None where the client is to wait in silence."""
    plain = not planned.streams
    if not (limits.loading_space and endpoint.document if plain else limits.loading_comments):
        return None
    beats = Beats(face, minor=minor, own=own, close=close, plain=plain)
    if limits.loading_reasoning:
        beats.reasoning = planned.name
    return beats
