"""Addresses that speak TLS: a client counts from its first packet, and has a bounded time to get through.

A loop's own server shows a connection only once its handshake is over, so that whoever never finishes one
would be counted nowhere. Here sockets are accepted first, counted, and then given to the loop.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

import structlog

from router.connection import FrontConnection
from router.shared import Shared
from router.wheel import NEVER

log = structlog.get_logger("modelyard.front")

HANDSHAKE_SECONDS = 10.0
"""A client that has not got through by then is gone: it takes two round trips."""
ACCEPTED_AT_ONCE = 64
"""Connections taken before others have their turn."""
AGAIN_AFTER = 1.0
"""Seconds without accepting when the process or the machine has no descriptor left."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Handshake:
    """One client until it has got through. Counted among the connections, and by client.

    Beyond their limits it is closed without a word: it could not read one yet.
    """

    __slots__ = ("_begun", "_client", "_over", "_shared", "_sock", "_taken", "_task", "deadline", "idle")

    def __init__(self, shared: Shared, taken: set[Handshake], sock: socket.socket, client: str) -> None:
        """*taken* holds those under way."""
        self._shared = shared
        self._taken = taken
        self._sock = sock
        self._client = client
        self._begun = self._over = False
        self._task: asyncio.Task[None] | None = None
        self.deadline = NEVER
        self.idle = 0.0
        """What to retire with, once it has got through; 0: not to."""

    def __repr__(self) -> str:
        return f"<Handshake {self._client} over={self._over}>"

    def begin(self, tls: ssl.SSLContext, made: Callable[[Handshake], SecureConnection]) -> None:
        """Count it and set out; *made* gives the connection it becomes."""
        shared = self._shared
        counters, limits = shared.counters, shared.limits
        mine = shared.connections_of.get(self._client, 0)
        if counters.connections >= limits.connections or mine >= limits.connections_per_client:
            self._sock.close()
            return
        counters.connections += 1
        shared.connections_of[self._client] = mine + 1
        self._taken.add(self)
        self.deadline = shared.now() + HANDSHAKE_SECONDS
        shared.wheel.watch(self)
        self._task = shared.spawn(self._shake(tls, made), name="tls-handshake")

    async def _shake(self, tls: ssl.SSLContext, made: Callable[[Handshake], SecureConnection]) -> None:
        loop, self._begun = asyncio.get_running_loop(), True
        try:
            await loop.connect_accepted_socket(lambda: made(self), self._sock, ssl=tls)
        except OSError:
            pass  # a port scan, a plain request, a client without trust in us: nobody is there to be told
        finally:
            self.end()

    def end(self) -> None:
        """Count it no more: it got through and counts itself, or is gone. The second call does nothing."""
        if self._over:
            return
        self._over = True
        shared = self._shared
        self._taken.discard(self)
        shared.wheel.forget(self)
        shared.counters.connections -= 1
        left = shared.connections_of[self._client] - 1
        if left:
            shared.connections_of[self._client] = left
        else:
            del shared.connections_of[self._client]

    def retire(self, idle: float) -> None:
        """See `FrontConnection`: as soon as it is one."""
        self.idle = idle

    def expired(self, now: float) -> None:
        """The wheel: it took too long."""
        self.abort()

    def abort(self) -> None:
        """End it now."""
        if self._task is not None:
            self._task.cancel()
        if not self._begun:  # nor will it, and nobody else has the socket
            self._sock.close()
            self.end()


class SecureConnection(FrontConnection):
    """A client that has got through."""

    __slots__ = ("_handshake",)

    def __init__(self, shared: Shared, connections: set[FrontConnection], handshake: Handshake) -> None:
        super().__init__(shared, connections)
        self._handshake = handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `FrontConnection`; from here on it counts itself."""
        self._handshake.end()
        super().connection_made(transport)
        if self._handshake.idle:
            self.retire(self._handshake.idle)


class SecureListener:
    """Accepts on one socket. `close` stops it, and not who was accepted."""

    def __init__(self, sock: socket.socket, accepted: Callable[[socket.socket, str], None]) -> None:
        """*sock* listens, and does not block. *accepted* is given each client's socket and address."""
        self._sock = sock
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Accept no more."""
        if self._again is not None:
            self._again.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.warning("accept_failed", problem=str(error), again_after_seconds=AGAIN_AFTER)
                self._loop.remove_reader(self._sock)
                self._again = self._loop.call_later(AGAIN_AFTER, self._go_on)
                return
            sock.setblocking(False)
            self._accepted(sock, peer[0] if isinstance(peer, tuple) else "local")

    def _go_on(self) -> None:
        self._again = None
        self._loop.add_reader(self._sock, self._accept)
