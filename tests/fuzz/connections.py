"""Whole conversations against references: what a client sends on one connection, and what an engine answers.

The front's own protocol and relay, on a transport that is a list; nothing is opened, and nothing waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, cast

import h11
import pytest

from registry.capability import Endpoint
from registry.capability import Protocol as ApiProtocol
from router.answer_head import parse_answer_head, parse_engine_head
from router.connection import FrontConnection
from router.ending import End
from router.head_cache import HeadCache
from router.openai import FACES
from router.ports import FrontLimits, Holder, Outcome, Refusal, RequestRecord, Route, Upstreams
from router.relay import Relay
from router.shared import FrontPorts, Shared
from router.wheel import Wheel
from tests.fuzz import references
from tests.fuzz.readers import pieces_of
from tests.fuzz.references import UnreadableError
from tests.support.wire import FakeControl, UnknownError, refusals

LIMITS: Final = FrontLimits(body_bytes=4096)


# -- what a client sends -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A request as it was understood, or the refusal that ended the connection."""

    path: str
    size: int
    """Bytes of its body."""


def check_requests(data: bytes) -> None:
    """Requests begin and end where RFC 9112 has it, however the bytes arrive; and nothing stays behind."""
    expected = _requests_in(data)
    # Who is refused for one of these may go on if the whole request was there, and is cut off if not.
    alike = not any(word in data.lower() for word in (b"upgrade", b"content-encoding", b"origin"))
    whole: list[Seen] | None = None
    records: list[RequestRecord] = []
    shared = _shared(records)
    for pieces in pieces_of(data):
        records.clear()
        refused = _talk(shared, pieces)
        understood = [record for record in records if record.outcome != Outcome.CLIENT_GONE]
        seen = [Seen(record.path, record.bytes_in) for record in understood[: -1 if refused else None]]
        if alike:
            assert seen == expected[: len(seen)], "requests are cut where they are not"
            whole = seen if whole is None else whole
            assert seen == whole, "how the bytes arrive changes what is understood"
        assert [each.path for each in seen] == [each.path for each in expected[: len(seen)]]
        # What cannot become a request any more may still be waited for: its end has not come.
        assert refused or len(seen) == len(expected), "neither answered nor refused"


def _requests_in(data: bytes) -> list[Seen]:
    """The whole requests that a strict reader finds in *data*, up to the first that is malformed."""
    found: list[Seen] = []
    while True:
        for _ in range(4):
            data = data.removeprefix(b"\r\n")
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return found
        try:
            head = references.read_head(data[: end + 4])
            data = data[end + 4 :]
            if head.chunked:
                body = references.read_chunks(data)
                size, whole, data = len(body.payload), body.ended, body.rest
            else:
                size = head.length or 0
                whole, data = len(data) >= size, data[size:]
        except UnreadableError:
            return found
        if not whole:
            return found
        found.append(Seen(head.target.partition(b"?")[0].decode(), size))
        if head.close:
            return found


def _talk(shared: Shared, pieces: list[bytes]) -> bool:
    """Let the front hear *pieces*; whether it refused to go on, which its last record then says."""
    connections: set[FrontConnection] = set()
    connection, transport = FrontConnection(shared, connections), _Transport()
    transport.protocol = connection
    connection.connection_made(cast("asyncio.Transport", transport))
    for piece in pieces:
        if transport.closing:
            break
        while piece and not transport.closing:
            reader = transport.protocol
            if isinstance(reader, asyncio.BufferedProtocol):
                view = cast("memoryview", reader.get_buffer(-1))
                taken = min(len(view), len(piece))
                view[:taken] = piece[:taken]
                reader.buffer_updated(taken)
            else:
                taken = len(piece)
                connection.data_received(piece)
            piece = piece[taken:]
            _answer_control(connection)
    assert not transport.aborted, "our own fault"
    refused = connection._lingered >= 0
    connection.connection_lost(None)
    counters = shared.counters
    held = (counters.connections, counters.in_flight, counters.waiting, shared.budget.held, len(connections))
    assert held == (0, 0, 0, 0, 0), "something stays behind"
    assert not shared.connections_of
    return refused


def _answer_control(connection: FrontConnection) -> None:
    """What is the control app's is answered at once, as it is there, by nobody."""
    while True:
        exchange = connection.exchange
        if exchange is None or connection._reads_body:
            return
        exchange.refuse(_NOBODY)


_NOBODY: Final = Refusal(410, "nobody", "nobody is here")


class _Nobody:
    """A directory without models."""

    def route(self, name: str | None, endpoint: Endpoint, holder: Holder | None = None) -> Route:
        raise UnknownError(f"no model {name!r}")

    def below(self, path: str, holder: Holder | None = None) -> tuple[Route, str]:
        raise UnknownError(f"no model {path!r}")


class _Transport:
    """Where the front writes to."""

    def __init__(self) -> None:
        self.written = b""
        self.closing = self.aborted = False
        self.protocol: asyncio.BaseProtocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str) -> None:
        return None

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def _never(work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
    """A task that does nothing."""
    work.close()
    return cast("asyncio.Task[Any]", _Done())


class _Done:
    def cancel(self) -> None:
        pass


def _shared(records: list[RequestRecord]) -> Shared:
    now = lambda: 0.0  # noqa: E731
    ports = FrontPorts(
        directory=_Nobody(),
        upstreams=cast("Upstreams", None),
        refusals=refusals,
        recorder=records.append,
        control=FakeControl(),
        spawn=_never,
        now=now,
        request_ids=lambda: "r",
    )
    return Shared(ports, LIMITS, Wheel(now, None))


# -- what an engine answers --------------------------------------------------------------------------


def check_answer(data: bytes) -> None:
    """What the client gets is the engine's answer, once and whole, or is seen to be none. The first byte of
    *data* says who asks and how it ends."""
    how, data = data[:1], data[1:]
    asked = _Asked.of(how[0] if how else 0)
    first: tuple[End | None, bytes] | None = None
    for pieces in pieces_of(data):
        relay = asked.relay()
        out = b""
        for piece in pieces:
            if relay.end is None:
                out += relay.feed(piece)
        if relay.end is None and asked.ends:
            out += relay.eof()
        if relay.tunnels:
            return
        body = _check_output(asked, relay, out, data)
        first = first or (relay.end, body)
        assert (relay.end, body) == first or relay.end is not End.COMPLETE, "how bytes arrive changes them"


@dataclass(frozen=True)
class _Asked:
    """How a client has asked, and whether the engine closes at the end."""

    minor: int
    bodyless: bool
    committed: bool
    plain: bool
    face: ApiProtocol | None
    as_it_is: bool
    done: bool
    ends: bool

    @staticmethod
    def of(code: int) -> _Asked:
        face = (None, None, ApiProtocol.OPENAI, ApiProtocol.ANTHROPIC)[code & 3]
        committed = face is not None and bool(code & 4)
        return _Asked(
            minor=0 if code & 8 else 1,
            bodyless=face is None and bool(code & 4),
            committed=committed,
            plain=committed and bool(code & 16),
            face=face,
            as_it_is=face is not None and not committed and bool(code & 16),
            done=bool(code & 32),
            ends=not code & 64,
        )

    def relay(self) -> Relay:
        face = None if self.face is None else FACES[self.face]
        heads = HeadCache(parse_answer_head if face is None else parse_engine_head)
        relay = Relay(heads, model="m", face=face, minor=self.minor, own=b"x-request-id: r")
        relay.bodyless, relay.as_it_is, relay.expects_done = self.bodyless, self.as_it_is, self.done
        if self.committed:
            relay.promise(events=not self.plain)
        return relay


def _check_output(asked: _Asked, relay: Relay, out: bytes, data: bytes) -> bytes:
    """The body a client reads; asserts that it is framed as its head says."""
    end = relay.end
    if end is None:
        assert not asked.ends, "the engine has closed, and the answer has no end"
        return b""
    if end in (End.REFUSED, End.YIELDED):
        assert out == b"", "something was sent of an answer that is refused"
        assert relay.refusal is not None
        return b""
    if asked.committed:
        out = _PROMISED[asked.minor] + out
    try:
        status, body, whole = _read_answer(asked, out, closed=end is not End.CUT)
    except h11.RemoteProtocolError:
        # Chunks go on as they are: what h11 finds wrong must be the engine's own.
        with pytest.raises(h11.RemoteProtocolError):
            _read_answer(asked, data, closed=True)
        return b""
    if end is End.CUT:
        assert not whole or relay.framing == b"close", "an answer that is cut looks whole"
        return b""
    assert whole, "an answer that is complete looks cut"
    if asked.face is None and end is End.COMPLETE:
        try:
            expected = _read_answer(asked, data, closed=True)
        except h11.RemoteProtocolError:
            return body  # the other reader is stricter
        assert (status, body, True) == expected
    return body


_PROMISED: Final = (
    b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
)


def _read_answer(asked: _Asked, raw: bytes, *, closed: bool) -> tuple[int, bytes, bool]:
    """Status, body and whether it was whole, as h11 reads the first answer in *raw*."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
    method = b"HEAD" if asked.bodyless else b"GET"
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(raw)
    if closed:
        connection.receive_data(b"")
    status, body = 0, b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, body, True
        elif not isinstance(event, h11.InformationalResponse):
            return status, body, False
