"""The shim itself: one loop over signals, output, peers and the few deadlines there are."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time

from supervisor.shim import PROTOCOL
from supervisor.shim.output import TAIL_LINES
from supervisor.shim.peers import PEERS, Peer, is_ours
from supervisor.shim.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from supervisor.shim.entry import Order

PEER_BACKLOG_BYTES = 2**20
"""A peer that does not read gets no more output events beyond this; it catches up from the ring."""
OUTPUT_EVERY = 0.1
LEAVE_GRACE = 2.0
"""After our own SIGTERM: time to collect the exit report; after that: time to read our last answer."""


class Shim:
    """One loop over signals, output, peers and the few deadlines there are."""

    def __init__(self, order: Order, tree: Tree, listener: socket.socket, out: int) -> None:
        self.order = order
        self.tree = tree
        self.output = tree.output
        self.listener = listener
        self.out = out
        self.peers: list[Peer] = []
        self.alone_since: float | None = time.monotonic()
        self.flush_at: float | None = None
        self.leave_at: float | None = None
        """We go at this time, whoever is attached."""
        self.ended_at: float | None = None
        self.collected = False
        self.terminated = False
        self.selector = selectors.DefaultSelector()
        self.wake_read, self.wake_write = os.pipe()
        for fd in (self.wake_read, self.wake_write):
            os.set_blocking(fd, False)
        self.selector.register(self.wake_read, selectors.EVENT_READ, "signal")
        self.selector.register(out, selectors.EVENT_READ, "output")
        self.selector.register(listener, selectors.EVENT_READ, "listener")

    def catch_signals(self) -> None:
        """Signals only wake the loop; what they mean is decided there."""
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def add(self, sock: socket.socket, *, attached: bool = False) -> Peer:
        """A new connection."""
        peer = Peer(sock)
        self.peers.append(peer)
        self.selector.register(sock, selectors.EVENT_READ, peer)
        if attached:
            self.attach(peer)
        return peer

    def drop(self, peer: Peer) -> None:
        """A connection is over; the last daemon's going starts the clock."""
        if peer in self.peers:
            self.peers.remove(peer)
            self.selector.unregister(peer.sock)
            peer.sock.close()
        if self.alone_since is None and not any(p.attached for p in self.peers):
            self.alone_since = time.monotonic()

    def attach(self, peer: Peer) -> None:
        """Hold the tree as long as this peer is connected."""
        peer.attached = True
        peer.seen, peer.told_open = self.output.count, self.output.current()
        self.alone_since = None

    def run(self) -> None:
        """Until the tree is empty and nobody needs us any more."""
        while True:
            now = time.monotonic()
            deadline = self.advance(now)
            if self.leave_at is not None:
                told_all = not any(peer.outbox for peer in self.peers)
                if now >= self.leave_at or (self.collected and told_all):
                    return
            timeout = None if deadline is None else max(0.0, deadline - now)
            for key, mask in self.selector.select(timeout):
                if key.data == "signal":
                    self.on_signals()
                elif key.data == "output":
                    self.on_output()
                elif key.data == "listener":
                    self.on_connection()
                else:
                    self.on_peer(key.data, mask)

    def advance(self, now: float) -> float | None:
        """Everything that is due by *now*; returns the next deadline."""
        due = [self.tree.advance(now)]
        if self.tree.phase == Tree.EMPTY and self.ended_at is None:
            self.ended_at = now
            self.drain_output()
            self.output.finish()
            self.output.note(f"tree is empty: code {self.tree.code}, signal {self.tree.signal}")
        due.append(self.consider_leaving(now))
        self.tell_peers(now)
        due.append(self.flush_at)
        for peer in list(self.peers):
            if not peer.flush():
                self.drop(peer)
            else:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.outbox else 0)
                self.selector.modify(peer.sock, events, peer)
        return min((at for at in due if at is not None), default=None)

    def consider_leaving(self, now: float) -> float | None:
        """Abandoned shims end their tree, and shims without a tree end themselves."""
        if self.ended_at is None:
            if self.alone_since is None or self.tree.phase != Tree.RUNNING:
                return None
            if now < self.alone_since + self.order.adopt_within:
                return self.alone_since + self.order.adopt_within
            self.output.note(f"no daemon for {self.order.adopt_within:g} s: ending the tree")
            self.terminated = True
            self.tree.stop(now, self.order.stop)
            return now
        if self.leave_at is None and self.alone_since is not None:
            patience = 0.0 if self.terminated else self.order.adopt_within
            if now >= max(self.alone_since, self.ended_at) + patience:
                self.leave_at = now
            return max(self.alone_since, self.ended_at) + patience
        if self.leave_at is None and self.terminated:
            self.leave_at = now + LEAVE_GRACE
        return self.leave_at

    def tell_peers(self, now: float) -> None:
        """Output in batches (a chatty engine costs its daemon ten messages a second), exits at once."""
        ended = self.ended_at is not None
        if ended or (self.flush_at is not None and now >= self.flush_at):
            self.flush_at = None
            current = self.output.current()
            for peer in self.peers:
                if not peer.attached or len(peer.outbox) > PEER_BACKLOG_BYTES:
                    continue
                lines = self.output.since(peer.seen)
                if lines or current != peer.told_open:
                    peer.queue({"event": "output", "lines": lines, "open": current})
                peer.seen, peer.told_open = self.output.count, current
        if ended:
            for peer in self.peers:
                if peer.attached and not peer.told_exit:
                    peer.told_exit = True
                    peer.queue({"event": "exited", "exit": self.tree.exit()})

    def on_signals(self) -> None:
        """SIGCHLD needs nothing more than the wake-up; TERM and INT stop the tree."""
        try:
            numbers = os.read(self.wake_read, 512)
        except BlockingIOError:
            return
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self.output.note("the shim was told to end: ending the tree")
            self.terminated = True
            self.tree.stop(time.monotonic(), self.order.stop)

    def on_output(self) -> bool:
        """Read a piece; False when there is nothing more (now)."""
        try:
            data = os.read(self.out, 65536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(self.out)
            os.close(self.out)
            self.out = -1
            return False
        now = time.monotonic()
        try:
            self.output.feed(data, now)
        except Exception:  # noqa: BLE001 - whatever an engine prints, it must go on
            sys.excepthook(*sys.exc_info())
        if self.flush_at is None:
            self.flush_at = now + OUTPUT_EVERY
        return True

    def drain_output(self) -> None:
        """The last words of a tree that is empty: the pipe holds all there will ever be."""
        while self.out >= 0 and self.on_output():
            pass

    def on_connection(self) -> None:
        """Somebody connects."""
        try:
            sock, _ = self.listener.accept()
        except OSError:
            return
        if len(self.peers) >= PEERS or not is_ours(sock):
            sock.close()
            return
        self.add(sock)

    def on_peer(self, peer: Peer, mask: int) -> None:
        """Requests; a peer that breaks the protocol badly is dropped, the tree never suffers."""
        if peer not in self.peers or not mask & selectors.EVENT_READ:
            return
        lines = peer.receive()
        if lines is None:
            self.drop(peer)
            return
        for line in lines:
            try:
                peer.queue(self.answer(peer, json.loads(line)))
            except Exception as error:  # noqa: BLE001 - whatever a peer sends, the engine must go on
                peer.queue({"error": f"bad request: {error!r}"[:500]})

    def answer(self, peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
        """One request."""
        op = request["op"]
        now = time.monotonic()
        if op == "attach":
            self.order.adopt_within = float(request.get("adopt_within", self.order.adopt_within))
            self.attach(peer)
            return {"re": op, **self.status(now), "lines": self.output.since(0), "open": peer.told_open}
        if op == "status":
            return {"re": op, **self.status(now)}
        if op == "tail":
            return {"re": op, "lines": self.output.tail(int(request.get("n", TAIL_LINES)))}
        if op == "stop":
            self.tree.stop(now, request)
            return {"re": op}
        if op == "kill":
            self.tree.kill(now)
            return {"re": op}
        if op == "collect":
            if self.tree.exit() is None:
                return {"re": op, "error": "the tree is not empty"}
            self.collected, self.leave_at = True, now + LEAVE_GRACE
            return {"re": op}
        return {"error": f"unknown op {op!r}"[:200]}

    def status(self, now: float) -> dict[str, Any]:
        """What there is to know."""
        last = self.output.last_at
        return {
            "protocol": PROTOCOL,
            "record": self.order.record,
            "phase": self.tree.phase,
            "last_output_age": None if last is None else now - last,
            "attached": sum(p.attached for p in self.peers),
            "exit": self.tree.exit(),
        }
