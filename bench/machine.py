"""The machine of one run: its cores, its processes, and what they cost."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
START_SECONDS = 40
"""The Rust routers look for their workers before they listen; the daemon waits for its model."""
LOAD_SECONDS = 90
PRIORITY = -10
"""As far as we may; without the right to it, the run is at the mercy of what else runs."""


@dataclass
class Subject:
    """One thing under load, and what was measured of it, round by round."""

    name: str
    port: int
    process: psutil.Process
    tree: bool = True
    """Its children are part of it; False for the daemon, whose children are engines."""
    figures: dict[str, list[float]] = field(default_factory=dict)
    errors: int = 0

    def note(self, figure: str, value: float) -> None:
        """Another round's *figure*."""
        self.figures.setdefault(figure, []).append(value)

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *(self.process.children(recursive=True) if self.tree else ())]

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        total = 0.0
        for process in self._processes():
            times = process.cpu_times()
            total += times.user + times.system
        return total

    def rss(self) -> int:
        """Resident bytes now."""
        return sum(process.memory_info().rss for process in self._processes())

    @contextmanager
    def peak_rss(self) -> Iterator[list[int]]:
        """The most resident bytes while the block ran, in the list it gives."""
        peak, stop = [self.rss()], threading.Event()

        def look() -> None:
            while not stop.wait(0.1):
                peak[0] = max(peak[0], self.rss())

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield peak
        finally:
            stop.set()
            watcher.join()


def free_port() -> int:
    """A loopback port nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _settle(core: int) -> None:
    """In the child: keep to *core*, and as far as we may, before whatever else the machine does: another
    program that takes turns on the core makes every cache cold, which costs Python twice what it costs C."""
    os.sched_setaffinity(0, {core})
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    # Where Linux weighs sessions against each other, a priority means nothing outside its own.
    os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(PRIORITY), encoding="ascii")


class Machine:
    """Owns the processes and the temporary directory of one run.

    Core 0 is the proxies', core 1 that of the engine and the load generator.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.cores = (cores[0], cores[1]) if len(cores) > 1 else None
        if self.cores is None:
            self.notes.append("not pinned: fewer than two cores, or no way to pin here")

    def compile(self, name: str) -> Path:
        """The binary of `<name>.c`."""
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise SystemExit("make bench needs a C compiler (cc) for its engine and load generator")
        binary = self.folder / name
        subprocess.run([compiler, "-O2", "-o", binary, HERE / f"{name}.c"], check=True)
        return binary

    def start(
        self, command: list[str | Path], *, core: int, port: int, env: Mapping[str, str] | None = None
    ) -> psutil.Process:
        """Run *command* pinned, until it listens on *port*."""
        log = self.folder / f"log.{port}"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
                preexec_fn=self._pinned(core),  # noqa: PLW1509  no threads yet
            )
        self._processes.append(process)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return psutil.Process(process.pid)
            time.sleep(0.05)
        raise SystemExit(f"{command[0]} did not come up:\n{log.read_text(errors='replace')[-2000:]}")

    def load(
        self, binary: Path, port: int, *, clients: int, seconds: float, mode: list[str]
    ) -> dict[str, float]:
        """One run of the load generator."""
        command = [str(binary), str(port), str(clients), str(seconds), *mode]
        done = subprocess.run(
            command, capture_output=True, check=True, preexec_fn=self._pinned(1), timeout=LOAD_SECONDS
        )
        result: dict[str, float] = json.loads(done.stdout)
        return result

    def close(self) -> None:
        """End every process that was started here."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _pinned(self, core: int) -> functools.partial[None] | None:
        return None if self.cores is None else functools.partial(_settle, self.cores[core])
