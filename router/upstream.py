"""Connections to engines: kept alive, one pool per incarnation of an instance, never older than the engine's
patience."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, cast

from router.answer_head import AnswerHead
from router.chunks import SIZE_LINES
from router.ports import Bytes, Lease
from router.wheel import TICK

CONNECT_TIMEOUT = 5.0
"""Seconds. Loopback answers at once or refuses; this bounds an endpoint on another machine."""
IDLE_PER_INSTANCE = 512
"""Idle connections kept per incarnation. Too small a number opens and closes connections under load (10, a
common
default, doubles the cost of a request at 64 clients); they are gone after `idle_upstream` seconds anyway."""

OPENING = 32
"""Connections opened at once to one incarnation. When a model becomes ready its waiters come all together:
the first is to be on its way before the last has opened its connection. Other instances have turns of their
own."""

PoolKey = tuple[str, int, int]

_LISTED: Final = len(SIZE_LINES)
_NO_CHUNKS: Final[deque[bytes]] = deque(maxlen=0)


class Taker(Protocol):
    """Who reads an answer."""

    def answer_data(self, data: bytes) -> None:
        """Bytes of the answer."""
        ...

    def answer_lost(self, error: Exception | None) -> None:
        """The connection has ended, before or after the end of the answer."""
        ...

    def upstream_slow(self, *, slow: bool) -> None:
        """The engine reads more slowly than it is written to, or has caught up."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to an engine (or to the control app). Has a taker while a request is on it."""

    __slots__ = (
        "_chunks", "_onward", "idle_since", "key", "last_head", "lost", "passed", "reused", "taker",
        "transport", "write",
    )  # fmt: skip

    def __init__(self, key: PoolKey) -> None:
        self.key = key
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        """Set when the connection is made."""
        self.write: Callable[[Bytes], None]
        """The transport's."""
        self.taker: Taker | None = None
        self._onward: Callable[[Bytes], None] | None = None
        """Where whole chunks go, past the taker."""
        self._chunks: deque[bytes] = _NO_CHUNKS
        self.passed = 0
        """Bytes that went past it."""
        self.reused = False
        """It has carried a request before: that it is lost may only mean that the engine tired of waiting."""
        self.last_head: AnswerHead | None = None
        """Of the answer before: nearly always the next one's too."""
        self.lost = False
        self.idle_since = 0.0

    def __repr__(self) -> str:
        state = "lost" if self.lost else "busy" if self.taker else "idle"
        return f"<UpstreamConnection {self.key[0]}:{self.key[1]} gen={self.key[2]} {state}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.write = self.transport.write

    def data_received(self, data: bytes) -> None:
        onward = self._onward
        if onward is not None:
            size = len(data)
            if size < _LISTED and data.startswith(SIZE_LINES[size]) and data.endswith(b"\r\n"):
                # Exactly one whole chunk, as nearly every event comes: nothing is to be taken apart.
                self._chunks.append(data)
                self.passed += size
                onward(data)
                return
        taker = self.taker
        if taker is not None:
            taker.answer_data(data)
        else:
            # Bytes nobody asked for would be taken for the next request's answer.
            self.lost = True
            self.transport.abort()

    def pass_on(self, chunks: deque[bytes], onward: Callable[[Bytes], None]) -> None:
        """Send each read that is one whole chunk *onward*, and note it in *chunks*, until told otherwise: a
        stream is thousands of them. What is anything else still goes to the taker."""
        self._chunks = chunks
        self._onward = onward

    def pass_no_more(self) -> int:
        """Everything goes to the taker again; the bytes that went past it."""
        passed, self.passed = self.passed, 0
        self._onward = None
        self._chunks = _NO_CHUNKS
        return passed

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        taker, self.taker = self.taker, None
        if taker is not None:
            taker.answer_lost(exc)

    def pause_writing(self) -> None:
        if self.taker is not None:
            self.taker.upstream_slow(slow=True)

    def resume_writing(self) -> None:
        if self.taker is not None:
            self.taker.upstream_slow(slow=False)

    def drop(self) -> None:
        """Close hard: the engine sees that nobody reads any more."""
        self.taker = None
        self.lost = True
        if self.transport is not None:
            self.transport.abort()


class _Turns:
    """Who opens a connection to one incarnation, and who waits to."""

    __slots__ = ("gate", "users")

    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(OPENING)
        self.users = 0


class UpstreamPool:
    """Idle connections by (host, port, incarnation), last used first."""

    def __init__(self, *, now: Callable[[], float], idle: float) -> None:
        self._idle = idle
        self._free: dict[PoolKey, list[UpstreamConnection]] = {}
        self._turns: dict[PoolKey, _Turns] = {}
        self._tls: ssl.SSLContext | None = None
        self.deadline = now() + TICK
        self.opened = 0
        """Connections opened so far."""

    def __repr__(self) -> str:
        idle = sum(len(free) for free in self._free.values())
        return f"<UpstreamPool idle={idle} instances={len(self._free)} opened={self.opened}>"

    @property
    def idle(self) -> int:
        """Connections without a request."""
        return sum(len(free) for free in self._free.values())

    def take(self, lease: Lease, now: float) -> UpstreamConnection | None:
        """An idle connection to the lease's incarnation that is young enough to be believed."""
        free = self._free.get((lease.host, lease.port, lease.generation))
        if not free:
            return None
        oldest = now - self._idle
        while free:
            connection = free.pop()
            if connection.lost:
                continue
            if connection.idle_since < oldest:
                connection.drop()
                continue
            return connection
        return None

    def give(self, connection: UpstreamConnection, now: float) -> None:
        """Keep *connection*, whose answer has ended, for the next request."""
        connection.taker = None
        if connection.lost:
            return
        free = self._free.get(connection.key)
        if free is None:
            free = self._free[connection.key] = []
        if len(free) >= IDLE_PER_INSTANCE:
            connection.drop()
            return
        connection.reused = True
        connection.idle_since = now
        free.append(connection)

    async def connect(self, lease: Lease) -> UpstreamConnection:
        """A fresh connection. Raises OSError (TimeoutError among them) within `CONNECT_TIMEOUT`."""
        key = (lease.host, lease.port, lease.generation)
        turns = self._turns.get(key)
        if turns is None:
            turns = self._turns[key] = _Turns()
        turns.users += 1
        try:
            async with turns.gate:
                return await self._open(key, lease)
        finally:
            turns.users -= 1
            if not turns.users:
                del self._turns[key]

    async def _open(self, key: PoolKey, lease: Lease) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        connection = UpstreamConnection(key)
        tls = self._context() if lease.tls else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await loop.create_connection(lambda: connection, lease.host, lease.port, ssl=tls)
        except BaseException:
            connection.drop()  # a cancelled call may have a transport already
            raise
        self.opened += 1
        return connection

    async def adopt(self, sock: object) -> UpstreamConnection:
        """A connection over an open socket: the control app's pair."""
        loop = asyncio.get_running_loop()
        if not isinstance(sock, socket.socket):
            raise TypeError(f"the control door gave {sock!r}, not a socket")
        _, connection = await loop.create_unix_connection(
            lambda: UpstreamConnection(("control", 0, 0)), sock=sock
        )
        return connection

    def expired(self, now: float) -> None:
        """Called by the wheel: close what has been idle for too long, forget what is lost."""
        self.deadline = now + TICK
        oldest = now - self._idle
        for key in list(self._free):
            kept = []
            for connection in self._free[key]:
                if connection.lost:
                    continue
                if connection.idle_since < oldest:
                    connection.drop()
                else:
                    kept.append(connection)
            if kept:
                self._free[key] = kept
            else:
                del self._free[key]

    def close(self) -> None:
        """Close every idle connection."""
        for free in self._free.values():
            for connection in free:
                connection.drop()
        self._free.clear()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls
