"""Shared memory that a tree leaves in /dev/shm. multiprocessing's resource tracker unlinks it, unless it was
killed as well, by an operator or by the kernel for want of memory: then this is all there is."""

from __future__ import annotations

import os

from supervisor.shim.processes import LINUX, quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = "/dev/shm/"
PREFIXES = ("psm_", "sem.mp-", "sem.loky-")
"""Names that multiprocessing and loky make up, each with its random part: nothing else is ever unlinked."""


def blocks_of(pid: int) -> set[str]:
    """Names of the blocks that a process has mapped; none where that cannot be read."""
    found = set()
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            for line in file:
                name = line.rstrip("\n").partition(FOLDER)[2]
                if name.startswith(PREFIXES) and "/" not in name:
                    found.add(name)
    except OSError:
        pass
    return found


def unlink_unused(names: Iterable[str]) -> list[str]:
    """Unlink those of *names* that are still there and that no process has mapped; returns them."""
    left = {name for name in names if os.path.exists(FOLDER + name)}
    if LINUX and left:
        for pid in os.listdir("/proc"):
            if pid.isdigit():
                left -= blocks_of(int(pid))
    for name in left:
        quietly(os.unlink, FOLDER + name)
    return sorted(left)
