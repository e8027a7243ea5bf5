"""One connection to a shim, and what is said on it (see `supervisor.shim` for the protocol)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

LINE_BYTES = 8 * 2**20
"""The longest answer is a full ring: 200 lines of 1000 characters, escaped."""


class ShimGoneError(Exception):
    """Nobody answers any more; the text says where and how."""


class ShimLink:
    """Newline-delimited JSON both ways. Reading ends with None when the shim is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> ShimLink:
        """On the launcher's end of a fresh socket pair."""
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=LINE_BYTES))

    @classmethod
    async def to(cls, path: Path, *, timeout: float = 5.0) -> ShimLink:
        """On a shim's socket. Raises ShimGoneError when nobody listens there."""
        try:
            async with asyncio.timeout(timeout):
                return cls(*await asyncio.open_unix_connection(str(path), limit=LINE_BYTES))
        except (OSError, TimeoutError) as error:
            raise ShimGoneError(f"no shim at {path}: {error or 'no answer'}") from None

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message; nothing happens when the shim is gone (the reader will tell)."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None at the end, clean or not."""
        try:
            line = await self._reader.readline()
            message = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    async def ask(self, message: dict[str, Any], *, timeout: float = 5.0) -> dict[str, Any]:
        """Send and wait for the answer; events in between are dropped. Raises ShimGoneError."""
        self.send(message)
        try:
            async with asyncio.timeout(timeout):
                while (answer := await self.receive()) is not None:
                    if "event" not in answer:
                        return answer
        except TimeoutError:
            raise ShimGoneError(f"the shim did not answer {message.get('op')} within {timeout:g} s") from None
        raise ShimGoneError("the shim hung up")

    async def ended(self, *, timeout: float = 5.0) -> bool:
        """Wait until the shim has hung up; False if it does not."""
        try:
            async with asyncio.timeout(timeout):
                while await self.receive() is not None:
                    pass
        except TimeoutError:
            return False
        return True

    def peer_pid(self) -> int | None:
        """Who listens on the other side, as the kernel knows it; None where it does not say."""
        sock = self._writer.get_extra_info("socket")
        if sock is None or not sys.platform.startswith("linux"):
            return None
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _ = struct.unpack("3i", raw)
        return int(pid) if uid == os.geteuid() else None

    def close(self) -> None:
        """Hang up; the shim then counts us as gone."""
        self._writer.close()
