"""What a service manager tells us and hears from us: readiness (`sd_notify`) and listeners opened for us.

Speaks systemd's two small protocols without its library; without systemd every call does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

import structlog

log = structlog.get_logger("modelyard.service")

FIRST_INHERITED_FD: Final = 3
"""Where passed descriptors start (sd_listen_fds(3))."""
MOST_LISTENERS: Final = 16
"""More than this is not a socket unit of ours but a damaged variable."""


class Notifier:
    """Reports to the service manager behind `$NOTIFY_SOCKET`. Never raises: a lost report ends no daemon."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Takes the variable out of *environ*, so that no engine reports in our name."""
        return cls(environ.pop("NOTIFY_SOCKET", None) or None)

    def ready(self, status: str = "") -> None:
        """Serving begins; *status* is what `systemctl status` shows."""
        self._send("READY=1", status)

    def stopping(self, status: str = "") -> None:
        """Shutting down begins; what follows may take as long as instances need to stop."""
        self._send("STOPPING=1", status)

    def status(self, text: str) -> None:
        """One line about what goes on."""
        self._send("", text)

    def extend_timeout(self, seconds: float) -> None:
        """Ask for *seconds* more before a start or a stop counts as hung."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}", "")

    def _send(self, state: str, status: str) -> None:
        if self._address is None:
            return
        lines = [state] if state else []
        if status:
            lines.append("STATUS=" + " ".join(status.split()))
        # "@" is how an abstract address, which starts with a NUL byte, is written in a variable.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.warning("service_notify_failed", address=self._address, error=str(error))


def inherited_listeners(environ: MutableMapping[str, str], *, pid: int) -> tuple[socket.socket, ...]:
    """The listening sockets a `.socket` unit opened for process *pid*, or none.

    Takes LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES out of *environ* and marks the descriptors not
    inheritable, so that no engine holds our port. Raises ValueError when the variables are meant for us and
    make no sense.
    """
    meant_for = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if meant_for != str(pid):
        return ()
    if not count.isdecimal() or not 0 <= int(count) <= MOST_LISTENERS:
        raise ValueError(f"LISTEN_FDS={count!r} is no number of sockets: check the .socket unit")
    listeners = []
    for descriptor in range(FIRST_INHERITED_FD, FIRST_INHERITED_FD + int(count)):
        try:
            os.set_inheritable(descriptor, False)
            listener = socket.socket(fileno=descriptor)
        except OSError as error:
            raise ValueError(
                f"LISTEN_FDS={count} but descriptor {descriptor} is no socket ({error.strerror}): "
                "start modelyard from its .socket unit"
            ) from error
        listener.setblocking(False)
        listeners.append(listener)
    return tuple(listeners)
