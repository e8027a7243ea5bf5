"""Connections of daemons to a shim."""

from __future__ import annotations

import json
import os
import socket
import struct

from supervisor.shim.processes import LINUX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PEERS = 16
"""A daemon, its successor, and people who look."""
REQUEST_BYTES = 64 * 1024


class Peer:
    """A connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.attached = False
        self.seen = 0
        """Lines of output it knows."""
        self.told_open = ""
        self.told_exit = False
        self.inbox = b""
        self.outbox = b""
        sock.setblocking(False)

    def queue(self, message: dict[str, Any]) -> None:
        """Send when the socket takes it."""
        self.outbox += json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n"

    def flush(self) -> bool:
        """Send what goes; False when the peer is gone."""
        try:
            while self.outbox:
                self.outbox = self.outbox[self.sock.send(self.outbox) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def receive(self) -> list[bytes] | None:
        """Complete lines that came in; None when the peer is gone or says too much."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self.inbox = (self.inbox + data).split(b"\n")
        return None if len(self.inbox) > REQUEST_BYTES else lines


def is_ours(sock: socket.socket) -> bool:
    """Whether the other side runs as we do (or as root). The folder is 0700 already; this is the belt."""
    if LINUX:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        uid = struct.unpack("3i", raw)[1]
        return uid in (0, os.getuid())
    return True
