"""From the first line on stdin to a running loop, and what is left when it ends: nothing."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import time

from supervisor.shim.loop import Shim
from supervisor.shim.output import LogFile, Output
from supervisor.shim.peers import PEERS, Peer
from supervisor.shim.processes import (
    LINUX,
    PR_SET_CHILD_SUBREAPER,
    prctl,
    quietly,
    read_process,
    remove_folder,
)  # fmt: skip
from supervisor.shim.tree import SpawnError, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ORDER_BYTES = 4 * 2**20
"""An order carries a whole environment; the kernel takes 2 MiB of arguments and environment."""
ORDER_TIMEOUT = 30.0


class Order:
    """What the launcher wants, from the first line it sends."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.argv: list[str] = [str(word) for word in data["argv"]]
        self.env: dict[str, str] = {str(k): str(v) for k, v in data["env"].items()}
        self.folder: str = data["folder"]
        """Private, made by the launcher, removed by us: holds the socket and the working directory."""
        self.cwd: str = data["cwd"]
        self.links: list[tuple[str, str]] = [(name, target) for name, target in data.get("links", ())]
        self.socket: str = data["socket"]
        self.log: str = data["log"]
        self.log_bytes = int(data.get("log_bytes", 8 * 2**20))
        self.adopt_within = float(data["adopt_within"])
        self.stop: dict[str, Any] = data.get("stop") or {}
        self.title = str(data.get("title", ""))
        """What runs, for the log: without secrets."""
        self.record: dict[str, Any] = data["record"]
        self.oom_score = int(data.get("oom_score", 200))
        """Added to the engine's: when memory runs out the kernel should take it and not the daemon."""


def take_stdin() -> socket.socket:
    """The launcher's connection, moved away from fd 0, which becomes /dev/null as fd 1 does."""
    connection = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return connection


def read_order(connection: socket.socket) -> Order | None:
    """The order; None when the launcher died before it was complete: then nothing was started."""
    deadline = time.monotonic() + ORDER_TIMEOUT
    data = b""
    while not data.endswith(b"\n"):
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            piece = connection.recv(65536)
        except OSError:
            return None
        if not piece or len(data) > ORDER_BYTES:
            return None
        data += piece
    return Order(json.loads(data))


def is_open(connection: socket.socket) -> bool:
    """Whether the launcher is still there."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def prepare(order: Order) -> socket.socket:
    """Working directory and socket."""
    os.makedirs(order.cwd, mode=0o700, exist_ok=True)
    for name, target in order.links:
        link = os.path.join(order.cwd, name)
        os.makedirs(os.path.dirname(link), mode=0o700, exist_ok=True)
        os.symlink(target, link)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(order.socket)
    os.chmod(order.socket, 0o600)
    listener.listen(PEERS)
    listener.setblocking(False)
    return listener


def start(connection: socket.socket, order: Order, umask: int) -> Shim | None:
    """Bring the engine up and say so; None when there is no engine (the launcher was told why)."""
    output = Output(LogFile(order.log, order.log_bytes, as_stderr=True))
    tree = Tree(output)
    try:
        listener = prepare(order)
        if not is_open(connection):
            return None
        out = tree.spawn(order, umask)
    except (OSError, SpawnError) as error:
        output.note(f"not started: {error}")
        peer = Peer(connection)
        peer.queue({"re": "start", "error": str(error)})
        peer.flush()
        return None
    me = read_process(os.getpid())
    started = float(me.started) if LINUX and me is not None else time.time()
    order.record.update(shim_pid=os.getpid(), shim_started=started, pid=tree.pid)
    label = f"{order.record.get('model')} incarnation {order.record.get('incarnation')}"
    output.note(f"{label} started: pid {tree.pid}, port {order.record.get('port')}: {order.title}")
    shim = Shim(order, tree, listener, out)
    shim.catch_signals()
    shim.add(connection, attached=True).queue({"re": "start", "record": order.record})
    return shim


def main() -> int:
    """Read the order, start the engine, look after it, leave nothing behind."""
    umask = os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would take every exit status
    connection = take_stdin()
    try:
        os.setsid()
    except OSError:
        pass  # the launcher made us a session leader already
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    order = read_order(connection)
    if order is None:
        return 1
    try:
        shim = start(connection, order, umask)
        if shim is None:
            return 1
        shim.run()
        return 0
    finally:
        quietly(os.unlink, order.socket)
        remove_folder(order.folder)
