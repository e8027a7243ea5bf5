"""Free loopback ports."""

from __future__ import annotations

import random
import socket
from collections import deque
from pathlib import Path

LOWEST = 20000
"""Below live well-known services and what people choose for their own."""
FALLBACK_EPHEMERAL = (49152, 65535)
"""IANA's dynamic range, which macOS uses."""
TRIES = 64
REMEMBERED = 64
"""Ports given back lately, which are not given out again: a late client of a dead engine must not reach
another model."""


def parse_range(text: str) -> tuple[int, int]:
    """/proc/sys/net/ipv4/ip_local_port_range. Raises ValueError."""
    low, high = text.split()
    return int(low), int(high)


def ephemeral_range() -> tuple[int, int]:
    """Where the kernel takes ports for outgoing connections from."""
    try:
        return parse_range(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text())
    except (OSError, ValueError):
        return FALLBACK_EPHEMERAL


class LoopbackPorts:
    """`PortSource`: ports nobody has on 127.0.0.1 now.

    Taken from below the kernel's ephemeral range: an engine may bind its port many seconds after it was
    chosen (vLLM: 20 s), and every outgoing connection of this machine, ours to the engines above all, takes
    a port out of that range meanwhile. If there is no room below it, the kernel chooses.
    """

    def __init__(self, ephemeral: tuple[int, int] | None = None, *, seed: int | None = None) -> None:
        low = (ephemeral or ephemeral_range())[0]
        self._choices = range(LOWEST, low)
        self._random = random.Random(seed)  # noqa: S311 - only to keep two daemons out of each other's way
        self._out: set[int] = set()
        self._lately: deque[int] = deque(maxlen=REMEMBERED)

    def take(self) -> int:
        """A port nobody listens on now and that we have not given out. Raises OSError when there is none."""
        for _ in range(TRIES if len(self._choices) > TRIES else 0):
            port = self._random.choice(self._choices)
            if self._is_new(port) and _can_bind(port):
                self._out.add(port)
                return port
        for _ in range(TRIES):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if self._is_new(port):
                self._out.add(port)
                return port
        raise OSError("no free loopback port found: too many connections or instances on this machine")

    def give_back(self, port: int) -> None:
        """Its instance is gone."""
        if port in self._out:
            self._out.discard(port)
            self._lately.append(port)

    def _is_new(self, port: int) -> bool:
        return port not in self._out and port not in self._lately


def _can_bind(port: int) -> bool:
    # Without SO_REUSEADDR: a port with connections in TIME_WAIT would fail engines that do not set it.
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
