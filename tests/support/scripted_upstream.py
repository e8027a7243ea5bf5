"""An engine in the test's own process that does exactly what the test says, byte by byte.

Nothing is answered by itself: a test takes the next request, looks at it, and sends, ends or aborts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast


@dataclass(eq=False)
class Received:
    """One request as it arrived, and the way back."""

    line: bytes
    headers: dict[bytes, list[bytes]]
    body: bytes
    connection: EngineConnection

    def header(self, name: str) -> str | None:
        """The only value of *name*, or None."""
        values = self.headers.get(name.encode(), [])
        assert len(values) <= 1, (name, values)
        return values[0].decode() if values else None

    def send(self, data: bytes) -> None:
        """Write exactly *data*."""
        self.connection.transport.write(data)

    def answer(self, body: bytes, *, status: str = "200 OK", content_type: str = "application/json") -> None:
        """A whole answer with a Content-Length."""
        head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        self.send(head.encode() + body)

    def begin_events(self, *, framing: str = "chunked") -> None:
        """The head of an event stream: `chunked`, or `close` as mlx_lm.server sends it."""
        if framing == "chunked":
            self.send(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
        else:
            self.send(
                b"HTTP/1.0 200 OK\r\nContent-type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n"
            )

    def chunk(self, data: bytes) -> None:
        """One chunk."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """Close, as an engine does that is done."""
        self.connection.transport.close()

    def abort(self) -> None:
        """Close as a kill does."""
        self.connection.transport.abort()


@dataclass(eq=False)
class EngineConnection(asyncio.Protocol):
    """One connection from the front; takes requests with a Content-Length, as the front must send them."""

    engine: ScriptedUpstream
    transport: asyncio.Transport = field(init=False)
    gone: asyncio.Future[None] = field(init=False)
    """Done once the front has closed it."""
    _data: bytes = b""
    _upgraded: bool = False
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.gone = asyncio.get_running_loop().create_future()
        self.engine.connections.append(self)

    async def raw(self, size: int) -> bytes:
        """The next *size* bytes after an upgrade."""
        while len(self._data) < size:
            self._more.clear()
            await self._more.wait()
        data, self._data = self._data[:size], self._data[size:]
        return data

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._more.set()
        while not self._upgraded:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            line, *fields = head.split(b"\r\n")
            headers: dict[bytes, list[bytes]] = {}
            for item in fields:
                name, _, value = item.partition(b":")
                headers.setdefault(name.lower(), []).append(value.strip())
            size = int(headers.get(b"content-length", [b"0"])[0])
            if len(rest) < size:
                return
            self._data = rest[size:]
            self._upgraded = b"upgrade" in headers
            self.engine.requests.put_nowait(Received(line, headers, rest[:size], self))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


class ScriptedUpstream:
    """Listens on a free loopback port. `next_request` gives the requests in the order they came."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Received] = asyncio.Queue()
        self.connections: list[EngineConnection] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: EngineConnection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def next_request(self) -> Received:
        """The next request, whenever it comes; the test's own time-out bounds it."""
        return await self.requests.get()

    def stop_listening(self) -> None:
        """Refuse further connections, as a port does whose process is gone; `start` listens on it again."""
        assert self._server is not None
        self._server.close()

    async def close(self) -> None:
        """Release everything."""
        if self._server is not None:
            self._server.close()
        for connection in self.connections:
            connection.transport.abort()
            await connection.gone
