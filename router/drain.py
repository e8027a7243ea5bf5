"""Answers nobody reads any more, read to their end for the sake of engines that cannot be told to stop."""

from __future__ import annotations

from router.ports import Lease, Outcome
from router.relay import Relay
from router.shared import Shared
from router.upstream import UpstreamConnection

DRAIN_SECONDS = 120.0
DRAIN_BYTES = 16 * 2**20
"""Beyond either the connection is closed hard: a generation that long serves nobody."""


class Drain:
    """Takes an upstream connection over from an exchange whose client has left; holds its lease until the
    end."""

    __slots__ = ("_lease", "_relay", "_shared", "_size", "_up", "deadline")

    def __init__(self, shared: Shared, up: UpstreamConnection, lease: Lease, relay: Relay) -> None:
        self._shared = shared
        self._up: UpstreamConnection | None = up
        self._lease = lease
        self._relay = relay
        self._size = 0
        self.deadline = shared.now() + DRAIN_SECONDS
        up.taker = self
        up.transport.resume_reading()  # the client's back-pressure ends with it
        shared.drains.add(self)
        shared.wheel.watch(self)

    def answer_data(self, data: bytes) -> None:
        """Read and forget."""
        self._size += len(data)
        self._relay.feed(data)
        if self._relay.end is not None or self._size > DRAIN_BYTES:
            self.stop()

    def answer_lost(self, error: Exception | None) -> None:
        """The engine has closed the connection."""
        self._up = None
        self.stop()

    def upstream_slow(self, *, slow: bool) -> None:
        """Nothing is sent any more."""

    def expired(self, now: float) -> None:
        """It took too long."""
        self.stop()

    def stop(self) -> None:
        """End it, and give everything back."""
        shared, up = self._shared, self._up
        self._up = None
        if self not in shared.drains:
            return
        shared.drains.discard(self)
        shared.wheel.forget(self)
        if up is not None:
            if self._relay.end is not None and self._relay.reusable:
                shared.pool.give(up, shared.now())
            else:
                up.drop()
        self._lease.release(Outcome.CLIENT_GONE)
