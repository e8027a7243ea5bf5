"""What memory there is and who holds it. One thread measures; everybody else reads its last result."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import structlog

from config.budgets import gpu_budget, host_budget
from config.schema import MemoryConfig
from registry.engine import HOST, DeviceId
from supervisor import processes
from supervisor.nvidia import Gpu, GpuReader, Nvml
from supervisor.ports import ChildRecord, Device, DeviceUsage, Leftover
from supervisor.processes import ProcessRow

log = structlog.get_logger("modelyard.memory")

REFRESH = 2.0
EFFORT = 20
"""Reading a tree's pages holds its memory map; a read is followed by at least so many times its duration."""


# -- parsing ---------------------------------------------------------------------------------------


def parse_pss(text: str) -> int | None:
    """Bytes, from /proc/PID/smaps_rollup; shared pages count by their share."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def parse_rss(text: str) -> int:
    """Bytes, from /proc/PID/status."""
    for line in text.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def parse_cgroup(text: str) -> str | None:
    """Our path in the unified hierarchy, from /proc/self/cgroup; None under cgroup v1."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:] or "/"
    return None


def parse_limit(text: str) -> int | None:
    """Bytes, from memory.max; None for `max`."""
    word = text.strip()
    return int(word) if word.isdigit() else None


# -- reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The tightest memory limit above us."""

    folder: Path
    limit: int


def tightest_cgroup(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> Cgroup | None:
    """The group with the lowest memory.max on our way up; None where nothing limits us."""
    try:
        path = parse_cgroup(own.read_text())
    except OSError:
        return None
    if path is None:
        return None
    folder = root / path.lstrip("/")
    found: list[Cgroup] = []
    for level in (folder, *folder.parents):
        try:
            limit = parse_limit((level / "memory.max").read_text())
        except OSError:
            limit = None
        if limit is not None:
            found.append(Cgroup(level, limit))
        if level == root:
            break
    return min(found, key=lambda group: group.limit, default=None)


def process_bytes(pid: int) -> int:
    """PSS, or RSS where that cannot be read; 0 when the process is gone."""
    if not sys.platform.startswith("linux"):
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return 0
    folder = Path(f"/proc/{pid}")
    try:
        pss = parse_pss((folder / "smaps_rollup").read_text())
        if pss is not None:
            return pss
    except OSError:
        pass
    try:
        return parse_rss((folder / "status").read_text())
    except OSError:
        return 0


class HostReader:
    """RAM as far as it is ours to use."""

    def __init__(self, cgroup: Cgroup | None = None) -> None:
        self._cgroup = cgroup

    def total(self) -> int:
        """Bytes: RAM, or the tightest limit on us."""
        ram = int(psutil.virtual_memory().total)
        return min(ram, self._cgroup.limit) if self._cgroup else ram

    def usage(self) -> DeviceUsage:
        """What is used and what could still be had."""
        memory = psutil.virtual_memory()
        total, free = int(memory.total), int(memory.available)
        if self._cgroup is not None:
            total = min(total, self._cgroup.limit)
            free = min(free, max(0, self._cgroup.limit - self._charged()))
        return DeviceUsage(used_bytes=max(0, total - free), free_bytes=free)

    def _charged(self) -> int:
        """What the group has taken, less the page cache that it would give back."""
        assert self._cgroup is not None
        try:
            current = int((self._cgroup.folder / "memory.current").read_text())
            for line in (self._cgroup.folder / "memory.stat").read_text().splitlines():
                if line.startswith("inactive_file "):
                    return current - int(line.split()[1])
        except (OSError, ValueError):
            return 0
        return current


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures come from."""

    host: HostReader = field(default_factory=lambda: HostReader(tightest_cgroup()))
    gpus: Callable[[], GpuReader] = Nvml.open
    tree: Callable[[ChildRecord], Iterable[ProcessRow]] = processes.tree_of
    process: Callable[[int], int] = process_bytes


class HostMemory:
    """`MemoryProbe` of this machine: RAM as device `host`, NVIDIA GPUs as `gpu0`, `gpu1` …

    Figures are at most `refresh_every` seconds old, or older when trees are so large that measuring them
    takes long. `unwatch` (a tree is gone) asks for a new measurement at once.
    """

    def __init__(
        self, config: MemoryConfig, *, refresh_every: float = REFRESH, sources: Sources | None = None
    ) -> None:
        """Measure once, so that the first reader finds figures. Blocks."""
        self._sources = sources or Sources()
        self._every = refresh_every
        self._gpus: GpuReader = self._sources.gpus()
        gpus = self._gpus.read()
        total = self._sources.host.total()
        self._devices = (
            Device(HOST, total, host_budget(config, total), "RAM"),
            *(Device(g.id, g.total_bytes, gpu_budget(config, g.id, g.total_bytes), g.name) for g in gpus),
        )
        self._usage: dict[DeviceId, DeviceUsage] = {}
        self._trees: dict[str, dict[DeviceId, int]] = {}
        self._watched: dict[str, tuple[ChildRecord, object]] = {}
        """By socket; the object tells one call of `watch` from the next."""
        self._on_gpus: dict[str, frozenset[int]] = {}
        """Processes of watched trees that were seen on a GPU."""
        self._gone: dict[str, frozenset[int]] = {}
        """The same, of trees that are gone, until none of them is seen there any more."""
        self._left: dict[str, tuple[Leftover, ...]] = {}
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._measure_devices(gpus)

    def start(self) -> None:
        """Begin to measure; without it the figures stay as they are."""
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop measuring. Blocks for the measurement under way."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5.0)
        self._gpus.close()

    # -- MemoryProbe

    def devices(self) -> tuple[Device, ...]:
        """The pools of this machine, fixed for the daemon's life."""
        return self._devices

    def usage(self) -> Mapping[DeviceId, DeviceUsage]:
        """Last measured use per device."""
        return self._usage

    def of_tree(self, record: ChildRecord) -> Mapping[DeviceId, int]:
        """Last measured bytes of an instance's tree; empty when not measured yet."""
        return self._trees.get(record.socket, {})

    def watch(self, record: ChildRecord) -> None:
        """Include this tree in the measurements, from a new one on that is made at once."""
        self._watched[record.socket] = (record, object())
        self._trees.pop(record.socket, None)
        self._wake.set()

    def unwatch(self, record: ChildRecord) -> None:
        """Its tree is gone: what it held is measured again at once."""
        if self._watched.pop(record.socket, None) is not None:
            self._trees.pop(record.socket, None)
            pids = self._on_gpus.pop(record.socket, None)
            if pids:
                self._gone[record.socket] = pids
            self._wake.set()

    def leftovers(self, record: ChildRecord) -> tuple[Leftover, ...] | None:
        """What a tree that is gone still holds on GPUs; RAM goes with its process."""
        if record.socket not in self._gone:
            return ()
        return self._left.get(record.socket)

    # -- measuring

    def _run(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            try:
                self.measure()
            except Exception:  # a thread that dies takes admission's eyes with it
                log.exception("memory_measurement_failed")
            took = time.monotonic() - began
            self._wake.wait(max(self._every, EFFORT * took))
            self._wake.clear()

    def measure(self) -> None:
        """One round. Blocks."""
        gone = dict(self._gone)  # those of which a measurement that begins now is news
        gpus = self._gpus.read()
        self._measure_leftovers(gone, gpus)
        self._measure_devices(gpus)
        for record, asked in tuple(self._watched.values()):
            sizes = self._measure_tree(record, gpus)
            if sizes and self._watched.get(record.socket) == (record, asked):  # not what it held before that
                self._trees[record.socket] = sizes
        for socket in self._trees.keys() - self._watched.keys():  # unwatched while it was measured
            self._trees.pop(socket, None)

    def _measure_leftovers(self, gone: Mapping[str, frozenset[int]], gpus: Sequence[Gpu]) -> None:
        for socket, pids in gone.items():
            left = tuple(
                Leftover(gpu.id, pid, taken)
                for gpu in gpus
                for pid, taken in sorted(gpu.by_pid.items())
                if pid in pids
            )
            if left:
                self._left[socket] = left
            else:
                self._gone.pop(socket, None)
                self._left.pop(socket, None)

    def _measure_devices(self, gpus: Iterable[Gpu]) -> None:
        usage = {HOST: self._sources.host.usage()}
        for gpu in gpus:
            usage[gpu.id] = DeviceUsage(gpu.used_bytes, gpu.free_bytes)
        self._usage = usage  # replaced whole: a reader never sees half of it

    def _measure_tree(self, record: ChildRecord, gpus: Iterable[Gpu]) -> dict[DeviceId, int]:
        pids = [row.pid for row in self._sources.tree(record)]
        if not pids:
            return {}
        sizes = {HOST: sum(self._sources.process(pid) for pid in pids)}
        seen: set[int] = set()
        for gpu in gpus:
            taken = sum(gpu.by_pid.get(pid, 0) for pid in pids)
            if taken:
                sizes[gpu.id] = taken
                seen.update(pid for pid in pids if pid in gpu.by_pid)
        if seen and record.socket in self._watched:
            self._on_gpus[record.socket] = frozenset(seen)
        return sizes
