"""The process table, and signals that hit exactly one process. Nothing here keeps state."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing them costs start time and memory
    from collections.abc import Callable, Iterable

LINUX = sys.platform.startswith("linux")

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


class Process:
    """A row of the process table. `started` is only compared, never read: its unit differs by platform."""

    def __init__(self, pid: int, ppid: int, pgid: int, state: str, started: str) -> None:
        self.pid = pid
        self.ppid = ppid
        self.pgid = pgid
        self.state = state
        self.started = started


def parse_stat(text: str) -> Process | None:
    """A row from /proc/PID/stat; the name in brackets may itself hold brackets and spaces."""
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    if len(fields) < 20:
        return None
    return Process(int(head.split(" ", 1)[0]), int(fields[1]), int(fields[2]), fields[0], fields[19])


def parse_ps(text: str) -> list[Process]:
    """Rows from `ps -axo pid=,ppid=,pgid=,state=,lstart=`; lstart is five words."""
    rows = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 9 and words[0].isdigit():
            pid, ppid, pgid = (int(word) for word in words[:3])
            rows.append(Process(pid, ppid, pgid, words[3][0], " ".join(words[4:])))
    return rows


def read_process(pid: int) -> Process | None:
    """One row, None when there is no such process."""
    if LINUX:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                return parse_stat(file.read())
        except OSError:
            return None
    return next((row for row in process_table() if row.pid == pid), None)


def process_table() -> list[Process]:
    """Every process that can be seen."""
    if LINUX:
        rows = (read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
        return [row for row in rows if row is not None]
    with os.popen("ps -axo pid=,ppid=,pgid=,state=,lstart=") as pipe:
        return parse_ps(pipe.read())


def descendants(rows: Iterable[Process], root: int, group: int) -> list[Process]:
    """Living processes below *root*, and (where orphans do not come back to us) those in *group*."""
    below: dict[int, list[Process]] = {}
    found = []
    for row in rows:
        below.setdefault(row.ppid, []).append(row)
    queue = list(below.get(root, ()))
    if not LINUX:
        queue += [row for row in rows if row.pgid == group and row.ppid != root]
    seen = {root}
    while queue:
        row = queue.pop()
        if row.pid in seen:
            continue
        seen.add(row.pid)
        queue += below.get(row.pid, ())
        if row.state != "Z":
            found.append(row)
    return found


def is_tracker(pid: int) -> bool:
    """Whether this is a resource tracker of multiprocessing (or of loky, which copied it)."""
    if not LINUX:
        return False
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"resource_tracker" in file.read(65536)
    except OSError:
        return False


def send_signal(process: Process, number: int) -> None:
    """Signal exactly this process; nothing happens when it is gone, even if its pid lives again."""
    try:
        if not hasattr(os, "pidfd_open"):
            os.kill(process.pid, number)
            return
        handle = os.pidfd_open(process.pid)
        try:
            now = read_process(process.pid)
            if now is not None and now.started == process.started:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno == errno.ENOSYS:  # an old kernel or a sandbox
            os.kill(process.pid, number)


def prctl(option: int, value: int) -> None:
    """Linux's prctl, best effort."""
    if LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def remove_folder(path: str) -> None:
    """Remove *path* with everything in it, following no link; what cannot be removed stays."""
    for parent, folders, files in os.walk(path, topdown=False):
        for name in files:
            quietly(os.unlink, os.path.join(parent, name))
        for name in folders:
            full = os.path.join(parent, name)
            quietly(os.unlink if os.path.islink(full) else os.rmdir, full)
    quietly(os.rmdir, path)


def quietly(call: Callable[[str], object], path: str) -> None:
    """Call it and let an OSError be: for tidying up, where there is nobody left to tell."""
    try:
        call(path)
    except OSError:
        pass
