"""`make bench`: what the front costs, beside nothing, nginx and an aiohttp proxy, in one interleaved run.

The figure is CPU: microseconds of the proxy's process tree per request (and per streamed event), which
other load on the machine disturbs far less than latency. The proxy under test has a core of its own, engine
and load generator share another; every proxy takes its turn in every round. nginx routes nothing by model:
it is the floor the kernel sets, not a peer. Needs a C compiler; nginx is left out, with a note, if missing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
WARM_UP_SECONDS = 0.5
CHECKED_RATIO = 1 / 3
"""Of the aiohttp proxy's CPU per request: what `--check` lets the front cost at most."""


@dataclass
class Subject:
    """One thing under load, and what was measured of it."""

    name: str
    port: int
    process: psutil.Process
    request_us: list[float] = field(default_factory=list)
    event_us: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    errors: int = 0

    def cpu_seconds(self) -> float:
        """User and system time of its tree so far."""
        total = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
        return total


def free_port() -> int:
    """A loopback port nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Bench:
    """Owns the processes and the temporary directory of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._cores = (cores[0], cores[1]) if len(cores) > 1 else None
        if self._cores is None:
            self.notes.append("not pinned: fewer than two cores, or no way to pin here")

    def compile(self, name: str) -> Path:
        """The binary of `<name>.c`."""
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise SystemExit("make bench needs a C compiler (cc) for its engine and load generator")
        binary = self.folder / name
        subprocess.run([compiler, "-O2", "-o", binary, HERE / f"{name}.c"], check=True)
        return binary

    def start(self, command: list[str | Path], *, core: int, port: int) -> psutil.Process:
        """Run *command* pinned, until it listens on *port*."""
        log = (self.folder / f"log.{port}").open("wb")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=self._pinned(core),  # noqa: PLW1509  there are no threads here
        )
        log.close()
        self._processes.append(process)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return psutil.Process(process.pid)
            time.sleep(0.05)
        raise SystemExit(
            f"{command[0]} did not come up:\n{(self.folder / f'log.{port}').read_text()[-2000:]}"
        )

    def load(
        self, binary: Path, port: int, *, clients: int, seconds: float, mode: list[str]
    ) -> dict[str, float]:
        """One run of the load generator."""
        command = [str(binary), str(port), str(clients), str(seconds), *mode]
        done = subprocess.run(command, capture_output=True, check=True, preexec_fn=self._pinned(1))
        result: dict[str, float] = json.loads(done.stdout)
        return result

    def close(self) -> None:
        """End every process that was started here."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _pinned(self, core: int) -> functools.partial[None] | None:
        if self._cores is None:
            return None
        return functools.partial(os.sched_setaffinity, 0, {self._cores[core]})


def nginx_config(folder: Path, port: int, upstream: int) -> Path:
    """nginx as a reverse proxy with everything off that costs, and bodies in memory."""
    path = folder / "nginx.conf"
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path.write_text(
        f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
        events {{ worker_connections 4096; }}
        http {{
          access_log off; client_max_body_size 64m; client_body_buffer_size 8m; keepalive_requests 1000000000;
          {places}
          upstream engine {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
          server {{ listen 127.0.0.1:{port};
            location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
                          proxy_buffering off; }} }}
        }}"""
    )
    return path


def subjects(bench: Bench, engine: Path) -> Iterator[Subject]:
    """Everything that is measured, started."""
    upstream = free_port()
    engine_process = bench.start([engine, str(upstream)], core=1, port=upstream)
    yield Subject("direct", upstream, engine_process)
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        bench.notes.append("no nginx here: that row is left out (Debian: apt-get install nginx-light)")
    else:
        port = free_port()
        config = nginx_config(bench.folder, port, upstream)
        yield Subject("nginx", port, bench.start([nginx, "-c", config], core=0, port=port))
    for name, script in (("aiohttp", "aiohttp_proxy.py"), ("modelyard", "front_server.py")):
        port = free_port()
        command: list[str | Path] = [sys.executable, HERE / script, str(port), str(upstream)]
        yield Subject(name, port, bench.start(command, core=0, port=port))


def check_answer(subject: Subject) -> None:
    """It answers as the engine does, before anything is measured."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{subject.port}/v1/chat/completions",
        b'{"model":"mock","stream":false}',
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        if b"chatcmpl-0001" not in answer.read():
            raise SystemExit(f"{subject.name} does not pass the engine's answer on")


def measure(bench: Bench, load: Path, found: list[Subject], options: argparse.Namespace) -> None:
    """All rounds."""
    for subject in found:
        check_answer(subject)
        bench.load(load, subject.port, clients=options.clients, seconds=WARM_UP_SECONDS, mode=["json"])
    for _ in range(options.rounds):
        for subject in found:
            before = subject.cpu_seconds()
            result = bench.load(
                load, subject.port, clients=options.clients, seconds=options.seconds, mode=["json"]
            )
            used = subject.cpu_seconds() - before
            subject.request_us.append(used / max(result["requests"], 1) * 1e6)
            subject.rates.append(result["requests"] / result["seconds"])
            subject.p50_ms.append(result["p50_us"] / 1000)
            subject.errors += int(result["errors"])
        for subject in found:
            before = subject.cpu_seconds()
            mode = ["sse", "100", "20000"]
            result = bench.load(
                load, subject.port, clients=options.clients, seconds=options.seconds, mode=mode
            )
            used = subject.cpu_seconds() - before
            subject.event_us.append(used / max(result["events"], 1) * 1e6)
            subject.errors += int(result["errors"])


def table(found: list[Subject], notes: list[str]) -> str:
    """What was measured, for people."""
    median = statistics.median
    base = {subject.name: median(subject.request_us) for subject in found}
    header = (
        f"{'':10} {'us/request':>10} {'(min-max)':>15} {'x nginx':>8} {'x aiohttp':>9} {'req/s':>8} "
        f"{'p50 ms':>7} {'us/event':>9} {'errors':>6}"
    )
    lines = [header]
    for subject in found:
        us = base[subject.name]
        spread = f"({min(subject.request_us):.1f}-{max(subject.request_us):.1f})"
        to_nginx = f"{us / base['nginx']:.2f}" if "nginx" in base else "-"
        lines.append(
            f"{subject.name:10} {us:10.1f} {spread:>15} {to_nginx:>8} {us / base['aiohttp']:9.2f} "
            f"{median(subject.rates):8.0f} {median(subject.p50_ms):7.2f} {median(subject.event_us):9.1f} "
            f"{subject.errors:6}"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def main() -> int:
    """Run, print, and with --check judge."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of load per run")
    parser.add_argument("--clients", type=int, default=64, help="keep-alive connections")
    parser.add_argument("--check", action="store_true", help="exit 1 if the front costs over 1/3 of aiohttp")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        bench = Bench(Path(folder))
        try:
            load, engine = bench.compile("load"), bench.compile("engine")
            found = list(subjects(bench, engine))
            measure(bench, load, found, options)
            notes = bench.notes
        finally:
            bench.close()
    print(table(found, notes))
    cost = {subject.name: statistics.median(subject.request_us) for subject in found}
    ratio = cost["modelyard"] / cost["aiohttp"]
    broken = [subject.name for subject in found if subject.errors]
    if options.check and (ratio > CHECKED_RATIO or broken):
        print(
            f"check failed: the front costs {ratio:.2f} of aiohttp (limit 0.33); errors: {broken or 'none'}"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
