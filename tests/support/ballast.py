"""A tree that holds memory in three ways: anonymous, a memfd that three processes share, and a mapped file.

`python ballast.py MIB FILE` holds so much of each, says `up` when all is in memory, and waits.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys

MIB = 2**20
PAGE = 4096


def touch(memory: mmap.mmap, *, write: bool) -> None:
    """Bring every page in."""
    for offset in range(0, len(memory), PAGE):
        if write:
            memory[offset] = 1
        else:
            memory[offset]


def main() -> None:
    """See the module."""
    size, path = int(sys.argv[1]) * MIB, sys.argv[2]
    kept = []
    shared = os.memfd_create("ballast")
    if size:
        os.ftruncate(shared, size)
        with open(path, "wb") as file:  # noqa: PTH123  nothing is imported that need not be
            file.writelines(os.urandom(MIB) for _ in range(size // MIB))
        with open(path, "rb") as file:  # noqa: PTH123
            kept.append(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))
        touch(kept[0], write=False)
        pool = mmap.mmap(shared, size)
        touch(pool, write=True)
        kept.append(pool)
    down, up = os.pipe()
    for _ in range(2):
        if os.fork() == 0:
            if size:
                touch(kept[1], write=False)
            os.write(up, b".")
            signal.pause()
    if size:  # after the forks: they would share it until somebody writes
        kept.append(mmap.mmap(-1, size))
        touch(kept[-1], write=True)
    for _ in range(2):
        os.read(down, 1)
    print("up", flush=True)
    signal.pause()


main()
