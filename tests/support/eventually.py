"""Wait for something that another process does: ring 4's only way to let time pass."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], *, within: float = 10.0, what: str = "") -> T:
    """The first truthy value of *probe*, asked every 10 ms; fails after *within* seconds."""
    deadline = time.monotonic() + within
    tick = threading.Event()
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or probe}")
        tick.wait(0.01)


async def eventually_async(probe: Callable[[], T], *, within: float = 10.0, what: str = "") -> T:
    """The same on a running event loop, which goes on in between."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        value = probe()
        if value:
            return value
        if loop.time() > deadline:
            raise AssertionError(f"not within {within} s: {what or probe}")
        wake: asyncio.Future[None] = loop.create_future()
        loop.call_later(0.01, wake.set_result, None)
        await wake


def crowded() -> float:
    """How many times as long everything takes, because others want this machine's cores too."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
