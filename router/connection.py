"""One client's connection: reads requests under our own policy, and hands each to an exchange.

Heads are found and counted here and checked by llhttp one at a time; bodies are read here, so that what
follows a request stays unread until its answer is complete. Requests on one connection are therefore
answered in order, and a pipelining client holds at most one read of ours.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

import structlog

from registry.capability import Protocol as ApiProtocol
from router import refused
from router.answers import refusal_answer
from router.body_reader import BodyReader
from router.chunks import ChunkScanner, FramingError
from router.entrance import objection_to
from router.exchange import Exchange
from router.head_cache import again
from router.heads import END, RequestHead
from router.openai import FACES
from router.ports import Refusal, RefusedRecord
from router.request import Bytes
from router.shared import Shared
from router.wheel import NEVER

log = structlog.get_logger("modelyard.front")

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends a reset."""
_LARGE = 65536
"""Bodies above this are read into a reused buffer and never copied."""
_PIPELINED = 65536
"""Bytes of further requests read while one is answered; then reading stops until it is."""
_EMPTY_LINES = 4
"""Empty lines skipped before a request; RFC 9112 2.2 asks for one, of clients that end a body with it."""
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 4 * 2**20
"""After an early refusal the client may still be sending: closing at once would take the refusal away from
it."""


def _without_empty_lines(data: bytes) -> bytes:
    """RFC 9112 2.2: an empty line before a request is skipped, but no flood of them."""
    for _ in range(_EMPTY_LINES):
        if not data.startswith(b"\r\n"):
            break
        data = data[2:]
    return data


class FrontConnection(asyncio.Protocol):
    """One client. At any time it reads a head, reads a body, waits for its exchange, lingers, or is
    closed."""

    __slots__ = (
        "_advancing", "_body", "_head_begun", "_last", "_last_idle", "_lingered", "_paused", "_pending",
        "_reader", "_scanner", "_shared", "_slow", "_taken", "client", "closing", "deadline", "exchange",
        "transport", "write",
    )  # fmt: skip

    def __init__(self, shared: Shared, connections: set[FrontConnection]) -> None:
        self._shared = shared
        self._taken = connections
        self.transport: asyncio.Transport
        self.write: Callable[[Bytes], None]
        """The transport's: sends to the client."""
        self.client = ""
        self.closing = False
        """Close after the answer at hand."""
        self._last_idle = 0.0
        """Once retired: seconds to wait for the one request more that is told to close."""
        self.deadline = NEVER
        self.exchange: Exchange | None = None
        self._pending = b""
        self._advancing = False
        self._paused = False
        self._slow = False
        """The client reads slower than it is written to."""
        self._head_begun = False
        self._last: RequestHead | None = None
        """The head of the request before: nearly always the next one's too."""
        self._reader: BodyReader | None = None
        """Reads a body of known length, in our place."""
        self._body = bytearray()
        """Of a chunked request, as far as it has come."""
        self._scanner: ChunkScanner | None = None
        self._lingered = -1
        """Bytes discarded while lingering; -1: not lingering."""

    def __repr__(self) -> str:
        return f"<FrontConnection {self.client} exchange={self.exchange!r}>"

    @property
    def ahead(self) -> int:
        """Bytes read of requests that are not being answered yet."""
        return len(self._pending)

    @property
    def _reads_body(self) -> bool:
        return self._reader is not None or self._scanner is not None

    # -- the transport's side ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.write = self.transport.write
        shared = self._shared
        peer = transport.get_extra_info("peername")
        self.client = peer[0] if isinstance(peer, tuple) else "local"
        counters = shared.counters
        counters.connections += 1
        counters.connections_total += 1
        self._taken.add(self)
        self.deadline = shared.now() + shared.limits.head_timeout
        shared.wheel.watch(self)
        limits = shared.limits
        mine = shared.connections_of.get(self.client, 0) + 1
        shared.connections_of[self.client] = mine
        if counters.connections > limits.connections:
            self._refuse(refused.too_many_connections(limits.connections))
        elif mine > limits.connections_per_client:
            self._refuse(refused.too_many_of_client(self.client, limits.connections_per_client))

    def connection_lost(self, exc: Exception | None) -> None:
        shared = self._shared
        shared.counters.connections -= 1
        left = shared.connections_of[self.client] - 1
        if left:
            shared.connections_of[self.client] = left
        else:
            del shared.connections_of[self.client]
        shared.wheel.forget(self)
        self._taken.discard(self)
        exchange, self.exchange = self.exchange, None
        self._reader = None
        if exchange is not None:
            exchange.client_gone()

    def data_received(self, data: bytes) -> None:
        try:
            if self._lingered >= 0:
                self._linger(len(data))
            elif self.exchange is not None and self._scanner is None:
                self._hold(data)
            elif self._pending or self._scanner is not None:
                self._advance(data)
            else:
                rest = self._take_head(data)  # nearly always a whole request, and nothing else
                if rest:
                    self._advance(rest)
        except Exception as error:  # noqa: BLE001  logged there
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        log.error("connection_failed", client=self.client, exc_info=error)
        self.transport.abort()

    def pause_writing(self) -> None:
        self._slow = True
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        self._slow = False
        if self.exchange is not None:
            self.exchange.resume()

    def expired(self, now: float) -> None:
        """The wheel: a head or body that is too slow, an idle connection, or something of the exchange's."""
        exchange, limits = self.exchange, self._shared.limits
        if self._lingered >= 0:
            self.deadline = NEVER
            self.transport.abort()
        elif exchange is not None and self._reads_body:
            self._forget_body()
            self._refuse(refused.too_slow("body", limits.body_timeout))
        elif exchange is not None:
            exchange.expired(now)
        elif self._head_begun:
            self._refuse(refused.too_slow("head", limits.head_timeout))
        else:
            self.deadline = NEVER
            self.transport.close()

    # -- the exchange's side -------------------------------------------------------------------------

    def answered(self, *, keep: bool, now: float) -> None:
        """The answer is complete: on to the next request, or close."""
        self.exchange = None
        if not keep or self.closing:
            if self._lingered < 0:
                self.deadline = now + _LINGER_SECONDS
                self.transport.close()
            return
        self.deadline = now + (self._last_idle or self._shared.limits.keep_alive)
        # The head of this answer promised more: only the next one can take that back.
        self.closing = self._last_idle > 0
        if self._pending and not self._advancing:
            self._advance(b"")
        if self._paused and (self.exchange is None or self._reads_body):
            self.hold(back=False)

    def cut(self, *, reset: bool = False) -> None:
        """Close hard; with a *reset* where the client reads until the end: a mere end would be a proper
        one."""
        sock = self.transport.get_extra_info("socket") if reset else None
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def opened(self) -> bytes:
        """The connection is a tunnel from here on; returns what the client has sent ahead."""
        ahead, self._pending = self._pending, b""
        self.closing = True
        self.hold(back=False)
        return ahead

    def hold(self, *, back: bool) -> None:
        """Read no more from the client, or go on."""
        if back is not self._paused:
            self._paused = back
            if back:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def shutdown(self) -> None:
        """Take no further request: close now if none is being answered."""
        self.closing = True
        if self.exchange is None:
            self.transport.close()

    def retire(self, idle: float) -> None:
        """Answer what is being asked, and one request more if it comes within *idle* seconds, then close."""
        self._last_idle = idle
        if self.exchange is None:
            self.closing = True
            if not self._head_begun:
                self.deadline = min(self.deadline, self._shared.now() + idle)

    def stop(self) -> None:
        """End now, saying so where anything can be said."""
        if self.exchange is not None:
            self._forget_body()
            self.exchange.stop(refused.shutting_down())
        self.transport.close()

    # -- reading ---------------------------------------------------------------------------------------

    def _hold(self, data: bytes) -> None:
        """Bytes of a next request while one is answered: they wait, and beyond a bound so does the client.
        In a tunnel they go through."""
        exchange = self.exchange
        if exchange is not None and exchange.tunnelled:
            exchange.pass_up(data)
            return
        self._pending += data
        if len(self._pending) > _PIPELINED:
            self.hold(back=True)

    def _advance(self, data: bytes) -> None:
        """Take requests out of what was read, until one is under way or there is no more."""
        if self._pending:
            data = self._pending + data
            self._pending = b""
        self._advancing = True
        try:
            while self._lingered < 0 and not self.transport.is_closing():
                if self._scanner is not None:
                    data = self._take_chunks(data)
                elif self.exchange is None and data:
                    rest = self._take_head(data)
                    if rest is None:
                        return
                    data = rest
                if not data or (self.exchange is not None and self._scanner is None):
                    break
            if data:
                self._hold(data)
        finally:
            self._advancing = False

    def _take_head(self, data: bytes) -> bytes | None:
        """Start on the request whose head *data* begins with, and return what follows it; None if the head is
        not complete, or its request is refused."""
        shared, head = self._shared, self._last
        found = None if head is None else again(head, data)
        if head is None or found is None:
            data = _without_empty_lines(data)
            end = self._find_end(data)
            if end is None:
                return None
            try:
                head, declared = shared.request_heads.take(data, end)
            except refused.RefusedError as error:
                self._refuse(error.refusal)
                return None
            self._last = head
        else:
            end, declared = found
        self._head_begun = False
        exchange = self.exchange = Exchange(shared, self, head)
        if self._slow:
            exchange.pause()  # the transport says so only once, and the answer before this one was told
        length = declared or 0
        refusal = objection_to(exchange, length)
        after = end + length
        if refusal is not None:
            if head.chunked or len(data) < after:
                self._refuse(refusal)
                return None
            exchange.refuse(refusal)
            return data[after:]
        if head.chunked:
            self._scanner = ChunkScanner()
            self._body = bytearray()
            self._ready_for_body(head, data[end:])
            return data[end:]
        if len(data) < after:
            return self._read_counted(head, data[end:], length)
        exchange.begin(data[end:after])
        return data[after:]

    def _find_end(self, data: bytes) -> int | None:
        """Where the head that *data* begins with ends; None if it does not yet, or is refused."""
        limits = self._shared.limits
        end = data.find(END, 0, limits.header_bytes)
        if end >= 0:
            return end + len(END)
        if len(data) >= limits.header_bytes:
            self._refuse(refused.head_too_large(limits.header_bytes))
            return None
        if data and not self._head_begun:
            self._head_begun = True
            self.deadline = self._shared.now() + limits.head_timeout
        self._pending = data
        return None

    def _read_counted(self, head: RequestHead, begun: bytes, length: int) -> bytes | None:
        """Read the rest of a body of known length straight into its place."""
        shared, exchange = self._shared, self.exchange
        assert exchange is not None  # the caller made it
        if not shared.budget.take(length):
            self._refuse(refused.buffer_full(None))
            return None
        exchange.charged = length
        if length > _LARGE:
            body = exchange.buffer = shared.buffers.take(length)
        else:
            body = bytearray(length)
        view = memoryview(body)[:length]
        view[: len(begun)] = begun
        self._reader = BodyReader(self, view, len(begun))
        self._read_as(self._reader)
        self._ready_for_body(head, begun)
        return b""

    def _read_as(self, protocol: asyncio.BaseProtocol) -> None:
        """From now on *protocol* gets what the client sends."""
        transport = self.transport
        transport.set_protocol(protocol)
        if not self._paused:
            # uvloop decides how it reads when it begins to.
            transport.pause_reading()
            transport.resume_reading()

    def _ready_for_body(self, head: RequestHead, begun: bytes) -> None:
        self.deadline = self._shared.now() + self._shared.limits.body_timeout
        if head.wants_continue and not begun:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def body_grew(self) -> None:
        """See `BodyTaker`."""
        self.deadline = self._shared.now() + self._shared.limits.body_timeout

    def body_complete(self) -> None:
        """See `BodyTaker`."""
        reader, exchange = self._reader, self.exchange
        assert reader is not None  # a body is being read,
        assert exchange is not None  # and only for an exchange
        try:
            self._forget_body()
            self.deadline = NEVER
            exchange.received = self._shared.now()
            body = reader.body
            exchange.begin(body if len(body) > _LARGE else bytes(body))
        except Exception as error:  # noqa: BLE001  logged there
            self._failed(error)

    def _take_chunks(self, data: bytes) -> bytes:
        """Decode a chunked body; returns what follows it."""
        scanner, body, exchange, shared = self._scanner, self._body, self.exchange, self._shared
        assert scanner is not None  # a chunked body is being read: both are set together
        assert exchange is not None
        self.deadline = shared.now() + shared.limits.body_timeout
        pieces: list[bytes] = []
        try:
            scanner.feed(data, pieces)
        except FramingError as error:
            self._forget_body()
            self._refuse(refused.bad_request(f"malformed chunked body: {error}"))
            return b""
        for piece in pieces:
            body += piece
        refusal = None
        if len(body) > shared.limits.body_bytes:
            refusal = refused.body_too_large(shared.limits.body_bytes)
        else:
            more = len(body) - exchange.charged
            if shared.budget.take(more):
                exchange.charged += more
            else:
                refusal = refused.buffer_full(None)
        if refusal is not None:
            self._forget_body()
            self._refuse(refusal)
            return b""
        if not scanner.ended:
            return b""
        self._forget_body()
        self.deadline = NEVER
        exchange.received = shared.now()
        exchange.begin(memoryview(body) if len(body) > _LARGE else bytes(body))
        return scanner.rest

    def _forget_body(self) -> None:
        self._scanner = None
        self._body = bytearray()
        if self._reader is not None:
            self._reader = None
            self._read_as(self)

    # -- refusing and closing ------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> None:
        """Refuse what is being read, before its end: answer, then close, lingering for what still comes."""
        shared = self._shared
        self._forget_body()
        self._pending = b""
        self._lingered = 0
        exchange = self.exchange
        if exchange is not None:
            exchange.refuse(refusal, close=True)
        else:
            request_id = shared.request_id()
            own = b"x-request-id: " + request_id.encode()
            answer = refusal_answer(refusal, FACES[ApiProtocol.OPENAI], own=own, close=True)
            self.transport.write(answer)
            counters = shared.counters
            counters.requests_total += 1
            counters.refused_total += 1
            shared.recorder(
                RefusedRecord(
                    request_id, "", "", self.client, status=refusal.status, outcome="refused",
                    code=refusal.code,
                    bytes_out=len(answer),
                )
            )  # fmt: skip
        self.deadline = shared.now() + _LINGER_SECONDS
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # TLS has no half: the answer's length says its end, and who still sends would be reset by a close.

    def _linger(self, nbytes: int) -> None:
        self._lingered += nbytes
        if self._lingered > _LINGER_BYTES:
            self.transport.abort()
