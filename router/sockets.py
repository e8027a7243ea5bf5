"""The sockets the daemon listens on: made, named, judged."""

from __future__ import annotations

import socket

from router.control.guard import is_loopback


def listening_socket(host: str, port: int) -> socket.socket:
    """A non-blocking socket listening on *host*:*port*. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # So that a restart does not wait for the connections of the last run (TIME_WAIT).
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((host, port))
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener


def address_of(listener: socket.socket) -> str:
    """`host:port`, as a person writes it."""
    name = listener.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def is_local(address: str) -> bool:
    """Only this machine reaches *address*, `host:port` or `unix:path`."""
    return address.startswith("unix:") or is_loopback(address)
