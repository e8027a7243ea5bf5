"""What a service manager tells us and hears from us: readiness and a heartbeat (`sd_notify`), and listeners
opened for us.

Speaks systemd's small protocols without its library; without systemd every call does nothing.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping
from typing import Final

import structlog

from supervisor.lifecycle import State
from supervisor.ports import Clock, Timer
from supervisor.view import FleetView

log = structlog.get_logger("modelyard.service")

FIRST_INHERITED_FD: Final = 3
"""Where passed descriptors start (sd_listen_fds(3))."""
MOST_LISTENERS: Final = 16
"""More than this is not a socket unit of ours but a damaged variable."""
STATUS_SECONDS: Final = 10.0
"""How often the line in `systemctl status` is looked at: nobody reads it more often, and it is only sent when
it has changed."""
LAUNCHD_LABEL: Final = "org.modelyard.daemon"
"""What the property list of `modelyard service install` calls us."""


def runs_as_service(environ: Mapping[str, str], *, pid: int) -> bool:
    """True when a service manager started process *pid*, and would start it again after a crash.

    Not by $INVOCATION_ID: on desktops a terminal is a service itself, and every shell in it inherits that.
    """
    if "NOTIFY_SOCKET" in environ or environ.get("SYSTEMD_EXEC_PID") == str(pid):
        return True
    return environ.get("XPC_SERVICE_NAME") == LAUNCHD_LABEL


def watchdog_seconds(environ: MutableMapping[str, str], *, pid: int) -> float | None:
    """Within what time systemd wants a sign of life from process *pid*; None when it wants none.

    Takes WATCHDOG_USEC and WATCHDOG_PID out of *environ*, so that no engine thinks they are meant for it.
    """
    given, meant_for = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if meant_for not in ("", str(pid)) or not given.isdecimal() or int(given) == 0:
        return None
    return int(given) / 1_000_000


class Notifier:
    """Reports to the service manager behind `$NOTIFY_SOCKET`. Never raises: a lost report ends no daemon."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Takes the variable out of *environ*, so that no engine reports in our name."""
        return cls(environ.pop("NOTIFY_SOCKET", None) or None)

    @property
    def is_heard(self) -> bool:
        """Somebody listens."""
        return self._address is not None

    def ready(self, status: str = "") -> None:
        """Serving begins; *status* is what `systemctl status` shows."""
        self._send("READY=1", status)

    def main_process(self, pid: int) -> None:
        """Process *pid* is the service from now on; said by the one that was."""
        self._send(f"MAINPID={pid}", "")

    def stopping(self, status: str = "") -> None:
        """Shutting down begins; what follows may take as long as instances need to stop."""
        self._send("STOPPING=1", status)

    def status(self, text: str) -> None:
        """One line about what goes on."""
        self._send("", text)

    def alive(self) -> None:
        """A sign of life for the watchdog."""
        self._send("WATCHDOG=1", "")

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


class Heartbeat:
    """Pings the watchdog and keeps the status line fresh, by a timer of the event loop.

    The timer comes only when the loop goes round, and a ping is sent only after *summary*, which reads the
    supervisor's state, has answered, and while *is_served*: a daemon that hangs, whose state cannot be read
    any more, or whose scheduler decides nothing, falls silent and is restarted; its models are adopted.
    Without a manager that listens it does nothing.
    """

    def __init__(
        self,
        notifier: Notifier,
        clock: Clock,
        *,
        watchdog: float | None,
        summary: Callable[[], str],
        is_served: Callable[[], bool],
    ) -> None:
        """*watchdog*: seconds within which the manager wants a ping; None: it wants none. *is_served*: the
        supervisor's mailboxes are."""
        self._notifier = notifier
        self._clock = clock
        self._watchdog = watchdog
        # Half of it, as sd_watchdog_enabled(3) advises: one ping may be late or lost.
        self._every = STATUS_SECONDS if watchdog is None else min(watchdog / 2, STATUS_SECONDS)
        self._summary = summary
        self._is_served = is_served
        self._said = ""
        self._timer: Timer | None = None
        self._is_ill = False

    def start(self) -> None:
        """Beat at once and from now on, until `close`."""
        if self._notifier.is_heard:
            self._beat()

    def close(self) -> None:
        """Fall silent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        self._timer = self._clock.call_later(self._every, self._beat)
        try:
            summary = self._summary()
        except Exception as error:
            if not self._is_ill:
                log.exception("heartbeat_withheld", error=repr(error))
            self._is_ill = True
            return
        served = self._is_served()
        if not served:
            summary = f"the scheduler has stopped deciding; {summary}"
            if not self._is_ill:
                log.error("heartbeat_withheld", error="the scheduler has stopped deciding")
        self._is_ill = not served
        if served and self._watchdog is not None:
            self._notifier.alive()
        if summary != self._said:
            self._said = summary
            self._notifier.status(summary)


_SHOWN: Final = (State.READY, State.STARTING, State.BACKOFF, State.FAILED)


def summary_of(fleet: FleetView, *, models: int, listen: str) -> str:
    """The daemon in one line: `2 ready, 1 failed of 12 models; 3 in flight, 0 waiting; on 127.0.0.1:80`."""
    if fleet.stopping:
        left = sum(view.state is not State.STOPPED for view in fleet.instances)
        return f"stopping, {left} models left"
    states = Counter(view.state for view in fleet.instances)
    shown = [f"{states[state]} {state.value}" for state in _SHOWN if states[state] or state is State.READY]
    in_flight = sum(view.leases for view in fleet.instances)
    return (
        f"{', '.join(shown)} of {models} models; {in_flight} in flight, {fleet.waiting} waiting; on {listen}"
    )


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
