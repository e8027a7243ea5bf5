"""The daemon's view of processes: what is in a shim's tree, what it uses, and who remains of a dead shim.

Every function reads the system and may take milliseconds: callers on the loop's thread use a thread. On Linux
it reads /proc directly (psutil is ten times slower over a whole table); elsewhere it asks psutil.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from supervisor.ports import ChildRecord

LINUX = sys.platform.startswith("linux")
PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")

TREE_VARIABLE = "MODELYARD_TREE"
"""In every child's environment: the folder of its shim. Finds what a dead shim left, where it is readable."""

START_TOLERANCE = 3.0
"""Seconds; start times outside Linux are wall-clock times from two sources."""


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process, as one read of the table saw it."""

    pid: int
    ppid: int
    pgid: int
    sid: int
    state: str
    name: str
    started: float
    """Clock ticks since boot on Linux, Unix seconds elsewhere; only compared."""
    cpu_seconds: float

    @property
    def is_zombie(self) -> bool:
        """Dead and not reaped: holds nothing."""
        return self.state == "Z"


def parse_stat(text: str) -> ProcessRow | None:
    """A row from the text of /proc/PID/stat; the name in brackets may hold brackets and spaces."""
    head, _, rest = text.rpartition(")")
    pid, _, name = head.partition(" (")
    fields = rest.split()
    if len(fields) < 20 or not pid.isdigit():
        return None
    return ProcessRow(
        pid=int(pid),
        ppid=int(fields[1]),
        pgid=int(fields[2]),
        sid=int(fields[3]),
        state=fields[0],
        name=name,
        started=float(fields[19]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / TICKS,
    )


def parse_io(text: str) -> int:
    """Bytes read and written, from /proc/PID/io: by calls (rchar, cached or not) and by page faults of mapped
    weights (read_bytes)."""
    total = 0
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if key in ("rchar", "wchar", "read_bytes"):
            total += int(value)
    return total


def boot_id() -> str:
    """Changes with every boot, so that a pid of an earlier one is never taken for a living child."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def read(pid: int) -> ProcessRow | None:
    """One process, None when it is gone."""
    if LINUX:
        try:
            return parse_stat((PROC / str(pid) / "stat").read_text(errors="replace"))
        except OSError:
            return None
    try:
        return _from_psutil(psutil.Process(pid))
    except psutil.Error:
        return None


def table() -> dict[int, ProcessRow]:
    """Every process that can be seen."""
    if LINUX:
        rows = (read(int(name)) for name in os.listdir(PROC) if name.isdigit())  # noqa: PTH208 - 5x faster
        return {row.pid: row for row in rows if row is not None}
    found = {}
    for process in psutil.process_iter():
        try:
            found[process.pid] = _from_psutil(process)
        except psutil.Error:
            continue
    return found


def _from_psutil(process: psutil.Process) -> ProcessRow:
    with process.oneshot():
        times = process.cpu_times()
        return ProcessRow(
            pid=process.pid,
            ppid=process.ppid(),
            pgid=_or_zero(os.getpgid, process.pid),
            sid=_or_zero(os.getsid, process.pid),
            state="Z" if process.status() == psutil.STATUS_ZOMBIE else "S",
            name=process.name(),
            started=process.create_time(),
            cpu_seconds=times.user + times.system,
        )


def _or_zero(call: Callable[[int], int], pid: int) -> int:
    try:
        return call(pid)
    except OSError:
        return 0


def same_start(one: float, other: float) -> bool:
    """Whether two start times of a pid mean the same process."""
    return one == other if LINUX else abs(one - other) < START_TOLERANCE


def is_alive(pid: int, started: float) -> bool:
    """Whether exactly that process lives."""
    row = read(pid)
    return row is not None and not row.is_zombie and same_start(row.started, started)


def descendants(rows: Mapping[int, ProcessRow], root: int) -> tuple[ProcessRow, ...]:
    """Living processes below *root*, without it."""
    below: dict[int, list[ProcessRow]] = {}
    for row in rows.values():
        below.setdefault(row.ppid, []).append(row)
    found: list[ProcessRow] = []
    queue = list(below.get(root, ()))
    seen = {root}
    while queue:
        row = queue.pop()
        if row.pid in seen:
            continue
        seen.add(row.pid)
        queue += below.get(row.pid, ())
        if not row.is_zombie:
            found.append(row)
    return tuple(found)


def tree_of(record: ChildRecord) -> tuple[ProcessRow, ...]:
    """The engine's processes: everything below its shim, if that is still the same shim."""
    if not is_alive(record.shim_pid, record.shim_started):
        return ()
    return descendants(table(), record.shim_pid)


def is_root(record: ChildRecord) -> bool:
    """Whether the record's pid still is the engine itself: alive, and the child of its own shim."""
    row = read(record.pid)
    if row is None or row.is_zombie or row.ppid != record.shim_pid:
        return False
    return is_alive(record.shim_pid, record.shim_started)


def effort(rows: Iterable[ProcessRow]) -> tuple[float, int]:
    """(CPU seconds, bytes of I/O) that these processes used so far: grows while they work."""
    cpu, io = 0.0, 0
    for row in rows:
        cpu += row.cpu_seconds
        if LINUX:
            try:
                io += parse_io((PROC / str(row.pid) / "io").read_text())
            except OSError:
                continue
    return cpu, io


# -- what a dead shim left -------------------------------------------------------------------------


def belongs(row: ProcessRow, folder: str, shim_pid: int = 0) -> bool:
    """Whether a process is of the tree whose shim had *folder*.

    It carries our variable (a process title may overwrite the environment: vLLM), or it is of the shim's
    session and works in the folder. Neither alone proves anything: a session's number may have been used
    again, and an operator's shell may stand in the folder.
    """
    if not LINUX:
        return False
    here = PROC / str(row.pid)
    try:
        if f"{TREE_VARIABLE}={folder}".encode() in (here / "environ").read_bytes().split(b"\0"):
            return True
        return row.sid == shim_pid and str((here / "cwd").readlink()).startswith(folder + "/")
    except OSError:
        return False


def remains(
    folder: str, *, shim_pid: int = 0, group: int = 0, just_died: bool = False
) -> tuple[ProcessRow, ...]:
    """Living processes of a tree whose shim is dead.

    *just_died* says that the shim's and the engine's numbers cannot have been used again yet: then the
    session and the *group* are proof enough.
    """
    me = os.getpid()

    def is_left(row: ProcessRow) -> bool:
        if row.pid == me or row.is_zombie:
            return False
        if just_died and ((shim_pid and row.sid == shim_pid) or (group and row.pgid == group)):
            return True
        return belongs(row, folder, shim_pid)

    return tuple(row for row in table().values() if is_left(row))


@contextmanager
def _handle(row: ProcessRow) -> Iterator[int | None]:
    """A pidfd of exactly this process; None where there are none."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    fd = os.pidfd_open(row.pid)
    try:
        yield fd
    finally:
        os.close(fd)


def kill(row: ProcessRow) -> None:
    """SIGKILL for exactly this process; nothing happens when it is gone."""
    try:
        with _handle(row) as fd:
            if not is_alive(row.pid, row.started):
                return
            if fd is None:
                os.kill(row.pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        return


def wait_gone(row: ProcessRow, within: float) -> bool:
    """Whether that process ends within so many seconds. Blocks."""
    deadline = time.monotonic() + within
    moment = threading.Event()
    while is_alive(row.pid, row.started):
        if time.monotonic() > deadline:
            return False
        moment.wait(0.01)
    return True


def end_remains(
    folder: str, *, shim_pid: int = 0, group: int = 0, just_died: bool = False, within: float = 10.0
) -> int:
    """SIGKILL what is left of a dead shim's tree until nothing is; returns how many processes that were.

    Blocks. Gives up after *within* seconds: a process in the kernel's hands cannot be killed by anybody.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + within
    moment = threading.Event()
    while rows := remains(folder, shim_pid=shim_pid, group=group, just_died=just_died):
        for row in rows:
            seen.add(row.pid)
            kill(row)
        if time.monotonic() > deadline:
            break
        moment.wait(0.02)
    return len(seen)
