"""Those who connect and say nothing, and those who say it slowly, cost the good clients nothing."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Final

import psutil
import pytest

from tests.support.running_daemon import RunningDaemon, scripted
from tests.support.strangers import asked, close, pause, read_answer

IDLE: Final = 2000
SLOW: Final = 200
GOOD: Final = 50
EACH: Final = 20
"""Requests of a good client in one round."""
ROUNDS: Final = 3
DEARER: Final = 1.3
"""What a request may cost in a crowd, of what it costs in quiet."""
pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


def test_a_silent_crowd_and_a_slow_one_cost_the_good_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 1000:
        pytest.skip(f"this machine lets a process have {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, IDLE + 4000), hard))
    # One address stands for thousands here, which by itself is refused.
    settings = {
        "models": {"a": scripted()},
        "limits": {"connections_per_client": 4096},
        "log": {"level": "warning"},
    }
    try:
        with RunningDaemon(tmp_path, settings) as daemon:
            assert daemon.process is not None
            assert daemon.chat("a").status_code == 200
            quiet, crowded = asyncio.run(_compare(daemon.port, psutil.Process(daemon.process.pid)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(f"\n{GOOD} clients: {median(quiet) * 1e6:.0f} µs of CPU a request in quiet, ", end="")
    print(f"{median(crowded) * 1e6:.0f} among {IDLE} idle and {SLOW} slow connections")
    assert median(crowded) <= median(quiet) * DEARER


async def _compare(port: int, daemon: psutil.Process) -> tuple[list[float], list[float]]:
    """CPU seconds per request, in quiet and in a crowd, in turns."""
    quiet, crowded = [], []
    for _ in range(ROUNDS):
        quiet.append(await _good(port, daemon))
        async with _crowd(port):
            crowded.append(await _good(port, daemon))
    return quiet, crowded


async def _good(port: int, daemon: psutil.Process) -> float:
    """All good clients ask at once, and each is served; CPU seconds per request."""
    before = daemon.cpu_times()
    await asyncio.gather(*(_client(port) for _ in range(GOOD)))
    after = daemon.cpu_times()
    return (after.user + after.system - before.user - before.system) / (GOOD * EACH)


async def _client(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(EACH):
        writer.write(asked("a", stream=False))
        status, _ = await read_answer(reader)
        assert status == 200
    await close(writer)


@contextlib.asynccontextmanager
async def _crowd(port: int) -> AsyncIterator[None]:
    """Connections that say nothing, and heads that come byte by byte."""
    silent = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(IDLE)]
    slow = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(SLOW)]
    drip = asyncio.create_task(_drip(slow))  # noqa: TID251  held, and ended below
    try:
        yield
    finally:
        drip.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drip
        assert not any(writer.is_closing() for writer in (*silent, *slow)), "the crowd was sent away"
        for writer in (*silent, *slow):
            writer.transport.abort()


async def _drip(slow: list[asyncio.StreamWriter]) -> None:
    """A byte of a head from each, a few times a second."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: " + b"a" * 10_000
    for n in range(len(head)):
        for writer in slow:
            writer.write(head[n : n + 1])
        await pause(0.25)
