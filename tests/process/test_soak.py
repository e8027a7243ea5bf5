"""Many clients of every temper for a long time, and nothing piles up (`make soak SECONDS=900`)."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Final

import psutil
import pytest

from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted
from tests.support.strangers import Stranger, pause

SECONDS: Final = float(os.environ.get("MODELYARD_SOAK_SECONDS", "20"))
CLIENTS: Final = 200
GROWS: Final = 1.05
"""What memory may come to, after the first third."""
pytestmark = [pytest.mark.process, pytest.mark.timeout(SECONDS + 120)]


def test_two_hundred_strangers_leave_nothing_behind(tmp_path: Path) -> None:
    words = scripted("--chunk-interval", "0.01", "--chunks", "200", "--chunk-bytes", "400")
    settings = {"models": {"a": words, "b": words}, "log": {"format": "json", "level": "warning"}}
    with RunningDaemon(tmp_path, settings) as daemon:
        assert daemon.process is not None
        for name in ("a", "b"):
            assert daemon.chat(name).status_code == 200
        process = psutil.Process(daemon.process.pid)
        eventually(lambda: not daemon.status()["front"]["connections"] - 1, what="the first clients to go")
        before = process.num_fds()
        said, sizes = asyncio.run(_soak(daemon.port, process))
        third = len(sizes) // 3
        settled, late = median(sizes[third : 2 * third]), median(sizes[2 * third :])
        print(f"\n{SECONDS:.0f} s, {CLIENTS} clients: {dict(sorted(said.items()))}")
        print(f"memory: {settled / 2**20:.1f} MiB, then {late / 2**20:.1f}; descriptors: {before}, ", end="")
        print(f"{max(before, process.num_fds())} at the end")
        eventually(lambda: process.num_fds() <= before, within=20, what="descriptors to be given back")
        for model in daemon.status()["models"]:
            assert (model["in_flight"], model["waiting"]) == (0, 0), model
        assert late <= settled * GROWS
        assert said["plain 200"] > CLIENTS / 2
        assert said["stream 200"] > CLIENTS / 4
        wrong = {
            what for what in said if what.startswith(("plain", "stream", "dawdles")) and "200" not in what
        }
        assert wrong == set(), "a client that did nothing wrong was not served"
        assert not [what for what in said if " 5" in what], "nonsense is the client's fault"
        assert "Traceback" not in daemon.log


async def _soak(port: int, process: psutil.Process) -> tuple[Counter[str], list[int]]:
    """What came of the clients, and the daemon's memory while they came."""
    said, sizes = Counter[str](), list[int]()
    until = asyncio.get_running_loop().time() + SECONDS
    strangers = [Stranger(port, "ab"[n % 2], n, said).come(until) for n in range(CLIENTS)]
    clients = asyncio.gather(*strangers)
    while not clients.done():
        sizes.append(process.memory_info().rss)
        await pause(min(1.0, SECONDS / 60))
    await clients
    return said, sizes
