"""The in-process way from the front to the control app: one socket pair per connection.

Who is behind a connection is said when the pair is made and belongs to it: a header cannot claim it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from router.control.streams import STREAMS
from router.errors import ControlBusyError
from router.ports import Holder
from supervisor.tasks import Spawn

MOST_LINES: Final = 256
"""Pairs open at once. Each is two descriptors; the front keeps one per client connection that asks for status
or management, and 256 open dashboards are more than one daemon needs."""

HEAD_BYTES: Final = 2**16
"""Longest request line and field: the front has its own, lower or equal limit (`limits.header_bytes`)."""

SHUTDOWN_SECONDS: Final = 2.0
"""How long requests under way may take when the door closes; all but loads are done in milliseconds."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is behind a connection, as the front knows it."""

    client: str
    """Address of the client."""
    holder: Holder | None = None
    """Whose key or session let it in; None: keys are off, or the path asks for none."""


class Line(web.RequestHandler):
    """aiohttp's protocol for one pair, with the caller it was opened for."""

    __slots__ = ("_lost", "caller")

    def __init__(
        self,
        server: web.Server,
        caller: Caller,
        *,
        loop: asyncio.AbstractEventLoop,
        lost: Callable[[Line], None],
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # documented as the way to switch it off
            tcp_keepalive=False,
            max_line_size=HEAD_BYTES,
            max_field_size=HEAD_BYTES,
        )
        self.caller = caller
        self._lost = lost

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        super().connection_lost(exc)
        self._lost(self)


def caller_of(request: web.Request) -> Caller:
    """Who sent *request*."""
    line = request.protocol
    if not isinstance(line, Line):
        raise TypeError("the control app is only served through its door")
    return line.caller


class Door:
    """Opens connections to a control app. Satisfies `router.ports.ControlDoor`.

    `await start()` before the first `open`; `await close()` once.
    """

    def __init__(self, app: web.Application, *, spawn: Spawn, most: int = MOST_LINES) -> None:
        # A caller that leaves must not keep its wait for a load: handlers are cancelled with it.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=SHUTDOWN_SECONDS)
        self._spawn = spawn
        self._most = most
        self._open = 0
        self._lines: set[Line] = set()

    def __repr__(self) -> str:
        return f"<Door lines={self._open}/{self._most}>"

    @property
    def lines(self) -> int:
        """Pairs open now."""
        return self._open

    async def start(self) -> None:
        """Make the app ready to serve."""
        await self._runner.setup()

    def end_streams(self) -> None:
        """End the answers that have no end of their own; for a daemon that is about to stop."""
        self._runner.app[STREAMS].close()

    async def close(self) -> None:
        """End every connection and the app with it."""
        await self._runner.cleanup()

    def hang_up(self, keys: Collection[str]) -> None:
        """Cut what these keys have open: a log that is followed would outlive the key that let it in."""
        for line in tuple(self._lines):
            holder = line.caller.holder
            if holder is not None and holder.key in keys and line.transport is not None:
                line.transport.abort()

    def open(self, client: str, holder: Holder | None = None) -> socket.socket:
        """The front's end (non-blocking) of a pair whose other end the app serves for *client*.

        Returns at once; bytes sent before the app has taken its end wait in the pair. Raises ControlBusyError
        when `most` are open, or when the door is closed.
        """
        server = self._runner.server
        if server is None:
            raise ControlBusyError("the daemon is starting or stopping: its status cannot be asked now")
        if self._open >= self._most:
            raise ControlBusyError(
                f"{self._most} connections ask for status or management already: close some, or try again"
            )
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._open += 1
        self._spawn(self._serve(server, theirs, Caller(client, holder)), name="control-line")
        return ours

    async def _serve(self, server: web.Server, end: socket.socket, caller: Caller) -> None:
        loop = asyncio.get_running_loop()
        line = Line(server, caller, loop=loop, lost=self._lost)
        self._lines.add(line)
        try:
            await loop.connect_accepted_socket(lambda: line, end)
        except BaseException:
            # Never connected, so `connection_lost` will not come.
            self._lost(line)
            end.close()
            raise

    def _lost(self, line: Line) -> None:
        self._open -= 1
        self._lines.discard(line)
