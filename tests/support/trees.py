"""Real shims in a test: a launcher in a temporary directory, recorders, the proof that nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from config.vocabulary import EngineName
from registry.engine import LaunchSpec, ModelId, ReadinessStep, StopPolicy
from supervisor.clock import SystemClock
from supervisor.ports import Child, ChildRecord, ExitReport
from supervisor.shim_client import ShimLauncher, ShimSettings
from supervisor.tasks import TaskScope
from tests.support.eventually import eventually, eventually_async

ENGINE = Path(__file__).with_name("fake_engine.py")
MARK = "YARD_TEST"
"""A variable that every shim and engine of a test inherits: how leftovers are found."""


T = TypeVar("T")
PATIENT = StopPolicy(grace_seconds=5.0)


class Recorder:
    """A `ChildListener` that remembers, and checks the order it is promised."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.report: ExitReport | None = None
        self.failure: str | None = None

    def spawned(self, child: Child) -> None:
        """First."""
        assert self.child is None
        assert self.failure is None
        self.child = child

    def spawn_failed(self, reason: str) -> None:
        """First and last."""
        assert self.child is None
        assert self.failure is None
        self.failure = reason

    def exited(self, report: ExitReport) -> None:
        """Last."""
        assert self.child is not None
        assert self.report is None
        self.report = report


def free_port() -> int:
    """A port nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fake_spec(
    *knobs: str,
    model: str = "org/fake",
    readiness: tuple[ReadinessStep, ...] = (),
    stop: StopPolicy = PATIENT,
    env: Mapping[str, str] | None = None,
    start_timeout: float = 20.0,
    stall_timeout: float = 10.0,
) -> LaunchSpec:
    """The scripted engine with *knobs*."""
    argv = (sys.executable, str(ENGINE), "--port", "{port}", "--model", model, *knobs)
    return command_spec(
        argv, model=model, readiness=readiness, stop=stop, env=env, timeouts=(start_timeout, stall_timeout)
    )


def command_spec(
    argv: Sequence[str],
    *,
    model: str = "org/fake",
    readiness: tuple[ReadinessStep, ...] = (),
    stop: StopPolicy = PATIENT,
    env: Mapping[str, str] | None = None,
    links: tuple[tuple[str, str], ...] = (),
    timeouts: tuple[float, float] = (20.0, 10.0),
) -> LaunchSpec:
    """Any command."""
    return LaunchSpec(
        model=ModelId(model),
        engine=EngineName.COMMAND,
        argv=tuple(argv),
        env=dict(env or {}),
        links=links,
        readiness=readiness,
        stop=stop,
        start_timeout=timeouts[0],
        stall_timeout=timeouts[1],
    )


@dataclass(slots=True)
class Yard:
    """A launcher and what it launched, on a running loop."""

    folder: Path
    adopt_within: float = 5.0
    log_bytes: int = 8 * 2**20
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    recorded: Callable[[], Sequence[ChildRecord]] = tuple
    tasks: TaskScope = field(default_factory=TaskScope)
    launcher: ShimLauncher = field(init=False)
    clock: SystemClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = SystemClock(asyncio.get_running_loop())
        self.run_dir.mkdir(mode=0o700, exist_ok=True)
        settings = ShimSettings(
            run_dir=self.run_dir,
            log_dir=self.folder / "logs",
            adopt_within=self.adopt_within,
            log_bytes=self.log_bytes,
            environ=dict(self.environ) | {MARK: str(self.folder)},
        )
        self.launcher = ShimLauncher(
            settings, tasks=self.tasks, clock=self.clock, recorded=lambda: self.recorded()
        )

    @property
    def run_dir(self) -> Path:
        """Where the shims' folders are."""
        return self.folder / "run"

    def begin(self, spec: LaunchSpec, *, port: int | None = None, key: str = "") -> Recorder:
        """Launch without waiting."""
        recorder = Recorder()
        self.launcher.launch(spec, port=port or free_port(), key=key, incarnation=1, listener=recorder)
        return recorder

    async def launch(
        self, spec: LaunchSpec, *, port: int | None = None, key: str = ""
    ) -> tuple[Recorder, Child]:
        """Launch and wait for the tree."""
        recorder = self.begin(spec, port=port, key=key)
        await eventually_async(lambda: recorder.child or recorder.failure, what="spawned")
        assert recorder.failure is None, recorder.failure
        assert recorder.child is not None
        return recorder, recorder.child

    async def attach(self, record: ChildRecord) -> tuple[Recorder, Child]:
        """Adopt."""
        recorder = Recorder()
        self.launcher.attach(record, recorder)
        await eventually_async(lambda: recorder.child or recorder.failure, what="attached")
        assert recorder.child is not None, recorder.failure
        return recorder, recorder.child

    async def ended(self, recorder: Recorder, *, within: float = 15.0) -> ExitReport:
        """Wait for the exit report, and for the shim to have gone."""
        report = await eventually_async(lambda: recorder.report, within=within, what="exited")
        await eventually_async(lambda: not list(self.run_dir.iterdir()), what="an empty run directory")
        assert report is not None
        return report

    async def moment(self) -> None:
        """Let 10 ms pass."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.clock.call_later(0.01, lambda: over.set_result(None))
        await over

    async def off_loop(self, call: Callable[[], T]) -> T:
        """*call*, which blocks, in a thread."""
        return await asyncio.to_thread(call)

    async def said(self, child: Child, words: str) -> None:
        """Wait until the engine has said *words*."""
        await eventually_async(lambda: any(words in line for line in child.tail), what=f"line {words!r}")


def in_yard(folder: Path, story: Callable[[Yard], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run *story* with a launcher, which lets go of everything at the end."""

    async def run() -> None:
        yard = Yard(folder, **settings)
        try:
            await story(yard)
        finally:
            await yard.tasks.close()

    asyncio.run(run())


def marked(folder: Path) -> list[int]:
    """Living processes of this test, shims and engines."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - thousands of entries
        if name.isdigit() and int(name) != os.getpid():
            try:
                environ = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if mark in environ.split(b"\0"):
                found.append(int(name))
    return found


def stats(port: int) -> dict[str, Any]:
    """What the scripted engine counts; {} while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stats", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except OSError:
        return {}


def words_of(pid: int, file: str) -> list[bytes]:
    """The zero-separated words of /proc/PID/environ or cmdline."""
    return Path(f"/proc/{pid}/{file}").read_bytes().split(b"\0")


@contextmanager
def squatter(port: int) -> Iterator[None]:
    """Somebody else listens on *port* and never answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield


def mode(path: str | Path) -> int:
    """Permission bits."""
    return Path(path).stat().st_mode & 0o777


def text(path: str | Path) -> str:
    """A file."""
    return Path(path).read_text()


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def clean_folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets; afterwards, no process of it may be left."""
    with tempfile.TemporaryDirectory(prefix="yard-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            yield folder
            eventually(lambda: not marked(folder), within=10.0, what="no process left behind")
        finally:
            for pid in marked(folder):
                os.kill(pid, signal.SIGKILL)
