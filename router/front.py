"""The front: listens, and holds what all client connections share."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Collection, Sequence

from router.connection import FrontConnection
from router.handshake import Handshake, SecureConnection, SecureListener
from router.ports import FrontLimits
from router.shared import Counters, FrontPorts, Shared
from router.wheel import Wheel

BACKLOG = 4096
"""Connections the kernel holds for us: a burst of clients at start."""
ACCEPTORS = 4
"""uvloop takes one connection of a listener in each round of the loop: with four that share a socket, a burst
of 512 streams is under way in a third of the time. Streams that begin together get their events together,
and each event that comes alone costs a wake-up of its own."""
RETIRE_IDLE = 30.0
"""Longer than clients keep a connection that they do not use (httpx 5 s, undici 4 s, aiohttp 15 s): whoever
closes first while the other sends loses a request, so it had better not be us."""
LOOK_EVERY = 0.1


class Front:
    """The HTTP face's hot path. `start` it, read `counters` whenever, `close` it."""

    def __init__(self, ports: FrontPorts, *, limits: FrontLimits | None = None, timer: bool = True) -> None:
        """*timer* False leaves the wheel to the caller: tests drive `wheel.tick` by hand."""
        loop = asyncio.get_running_loop()
        self.wheel = Wheel(ports.now, loop.call_later if timer else None)
        self.shared = Shared(ports, limits or FrontLimits(), self.wheel)
        self.wheel.watch(self.shared.pool)
        self._connections: set[FrontConnection] = set()
        self._handshakes: set[Handshake] = set()
        self._secure: list[SecureListener] = []
        self._servers: list[asyncio.Server] = []

    def __repr__(self) -> str:
        counters = self.counters
        return f"<Front connections={counters.connections} in_flight={counters.in_flight}>"

    @property
    def counters(self) -> Counters:
        """Plain integers: connections, in_flight, waiting, totals."""
        return self.shared.counters

    def clients(self) -> tuple[FrontConnection, ...]:
        """The connections open now."""
        return tuple(self._connections)

    def connection(self) -> FrontConnection:
        """A protocol for one client: the factory for `loop.create_server`."""
        return FrontConnection(self.shared, self._connections)

    async def start(
        self,
        *,
        sockets: Sequence[socket.socket] = (),
        secure: Collection[socket.socket] = (),
        tls: ssl.SSLContext | None = None,
        host: str | None = None,
        port: int = 0,
    ) -> list[asyncio.Server]:
        """Listen on *sockets* (already bound), of which the *secure* speak *tls*; or on *host* and *port*
        (0: any free one)."""
        loop = asyncio.get_running_loop()
        if sockets:
            plain = [sock for sock in sockets if sock not in secure]
            for sock in tuple(plain):
                if sock.family != socket.AF_UNIX:
                    plain += [sock.dup() for _ in range(ACCEPTORS - 1)]
            started = [await self._serve(sock) for sock in plain]
            for sock in secure:
                assert tls is not None  # who listens for it has it
                self._serve_securely(sock, tls)
        else:
            started = [await loop.create_server(self.connection, host or "127.0.0.1", port, backlog=BACKLOG)]
        self._servers += started
        return started

    async def _serve(self, sock: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            return await loop.create_unix_server(self.connection, sock=sock, backlog=BACKLOG)
        return await loop.create_server(self.connection, sock=sock, backlog=BACKLOG)

    def _serve_securely(self, sock: socket.socket, tls: ssl.SSLContext) -> None:
        def made(handshake: Handshake) -> SecureConnection:
            return SecureConnection(self.shared, self._connections, handshake)

        def accepted(client: socket.socket, address: str) -> None:
            Handshake(self.shared, self._handshakes, client, address).begin(tls, made)

        sock.listen(BACKLOG)
        self._secure.append(SecureListener(sock, accepted))

    def retire(self) -> None:
        """Stop accepting: another process listens on the same sockets. Who is connected may ask once more, is
        told to close, and is not kept waiting for a request for longer than `RETIRE_IDLE` seconds."""
        self._stop_accepting()
        for connection in self._connections:
            connection.retire(RETIRE_IDLE)
        for handshake in self._handshakes:
            handshake.retire(RETIRE_IDLE)

    def _stop_accepting(self) -> None:
        for server in self._servers:
            server.close()
        for listener in self._secure:
            listener.close()

    async def empty(self, limit: float) -> None:
        """Wait until nobody is connected, for at most *limit* seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        while (self._connections or self._handshakes) and loop.time() < deadline:
            moment: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(LOOK_EVERY, moment.set_result, None)
            try:
                await moment
            finally:
                timer.cancel()  # of one that was cancelled itself there is no result to set

    async def close(self, grace: float) -> None:
        """Stop accepting, let answers end for up to *grace* seconds, then end the rest with
        `shutting_down`."""
        self._stop_accepting()
        for handshake in list(self._handshakes):
            handshake.abort()
        for connection in list(self._connections):
            connection.shutdown()
        await self.shared.idle(grace)
        for connection in list(self._connections):
            connection.stop()
        for drain in list(self.shared.drains):
            drain.stop()
        self.shared.pool.close()
        self.wheel.close()
