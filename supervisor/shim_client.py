"""`Launcher` over shims: starts them, attaches to them, reports what becomes of their trees."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from registry.engine import LaunchSpec, ModelId, StopPolicy
from supervisor import processes
from supervisor.ports import ChildListener, ChildRecord, Clock, ExitReport
from supervisor.records import record_from_json
from supervisor.shim_link import ShimGoneError, ShimLink
from supervisor.tasks import TaskScope

log = structlog.get_logger("modelyard.launcher")

SHIM = Path(__file__).with_name("shim")
TAIL_LINES = 200
ANSWER_WITHIN = 30.0
"""A Python start is 0.1 s; a machine that swaps takes its time."""
ENDING = frozenset({"command", "term", "kill"})
"""Phases of a shim that is ending its tree."""
HALF_STARTED = 1.0
"""Seconds a folder may lack its socket while its shim starts."""

OURS = re.compile(
    r"PYTHON(PATH|HOME|STARTUP|SAFEPATH|PLATLIBDIR|USERBASE|EXECUTABLE)|VIRTUAL_ENV(_PROMPT)?|__PYVENV_LAUNCHER__"
    r"|NOTIFY_SOCKET|LISTEN_(FDS|PID|FDNAMES)|WATCHDOG_(USEC|PID)|MAINPID|JOURNAL_STREAM|INVOCATION_ID"
    r"|CREDENTIALS_DIRECTORY|MODELYARD_.*"
)
"""Variables that mean the daemon: its Python (an engine must not import our `config`), its service, its
settings and secrets."""


@dataclass(frozen=True, slots=True)
class ShimSettings:
    """Where shims live and how they behave."""

    run_dir: Path
    """0700, with a short path: a shim's socket has at most 103 bytes (`state_dir.run_dir_for`)."""
    log_dir: Path
    adopt_within: float
    """Seconds a tree outlives its daemon."""
    python: str = sys.executable
    log_bytes: int = 8 * 2**20
    """Per file; there are two per model."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """What children inherit, less `OURS`."""


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the daemon's environment that is no business of the daemon's alone."""
    return {name: value for name, value in environ.items() if not OURS.fullmatch(name)}


def log_name(model: ModelId) -> str:
    """A file name for a model id: readable, and different for different ids."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", model.replace("/", "--"))[:100].lstrip(".")
    if plain == model:
        return f"{plain}.log"
    mark = hashlib.sha256(model.encode()).hexdigest()[:8]  # `a/b` and `a--b` are two models
    return f"{plain}-{mark}.log"


class ShimChild:
    """A tree under its shim, as the daemon sees it. `Child` of supervisor.ports."""

    def __init__(self, record: ChildRecord, link: ShimLink) -> None:
        self.record = record
        self._link = link
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._open = ""

    def __repr__(self) -> str:
        return f"<ShimChild {self.record.model} inc={self.record.incarnation} pid={self.record.pid}>"

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, a progress bar's current state last."""
        return (*self._lines, self._open) if self._open else tuple(self._lines)

    def heard(self, message: Mapping[str, Any]) -> None:
        """New output."""
        self._lines.extend(str(line) for line in message.get("lines", ()))
        self._open = str(message.get("open", ""))

    def stop(self, policy: StopPolicy) -> None:
        """Ask the shim to end the tree; `exited` follows."""
        request = {"op": "stop", **stop_request(policy)}
        if policy.command:
            request["command"] = fill_stop(policy.command, self.record)
        self._link.send(request)

    def kill(self) -> None:
        """End the tree now; `exited` follows."""
        self._link.send({"op": "kill"})


def stop_request(policy: StopPolicy) -> dict[str, Any]:
    """A policy as the shim reads it, without its command."""
    return {"grace": policy.grace_seconds, "repeat_term": policy.repeat_term_seconds}


def fill_stop(command: Sequence[str], record: ChildRecord) -> list[str]:
    """cmd_stop with its places filled; plain replacement, so that other braces survive."""
    places = {"{port}": str(record.port), "{model}": record.model, "{pid}": str(record.pid)}
    filled = list(command)
    for place, value in places.items():
        filled = [word.replace(place, value) for word in filled]
    return filled


class ShimLauncher:
    """Turns a `LaunchSpec` into a tree under a shim of its own. `Launcher` of supervisor.ports.

    The daemon only ever attaches: when it goes, whatever way, a shim keeps its tree for `adopt_within` and
    the next daemon finds it in the run directory.
    """

    def __init__(
        self,
        settings: ShimSettings,
        *,
        tasks: TaskScope,
        clock: Clock,
        recorded: Callable[[], Sequence[ChildRecord]] = tuple,
    ) -> None:
        """*recorded*: the trees that the journal remembers, for what is left of those whose shim died."""
        self._settings = settings
        self._tasks = tasks
        self._clock = clock
        self._recorded = recorded
        self._boot_id = processes.boot_id()

    # launching

    def launch(
        self, spec: LaunchSpec, *, port: int, key: str, incarnation: int, listener: ChildListener
    ) -> None:
        """Start a tree. `spawned` or `spawn_failed` follows."""
        work = self._launch(spec, self._draft(spec, port, key, incarnation), listener)
        self._tasks.spawn(work, name=f"launch {spec.model} {incarnation}")

    def _draft(self, spec: LaunchSpec, port: int, key: str, incarnation: int) -> ChildRecord:
        """The record as far as it is known before there is a process."""
        folder = self._settings.run_dir / secrets.token_hex(4)
        return ChildRecord(
            model=spec.model,
            engine=spec.engine,
            fingerprint=spec.fingerprint,
            incarnation=incarnation,
            port=port,
            key=key,
            shim_pid=0,
            shim_started=0.0,
            pid=0,
            boot_id=self._boot_id,
            socket=str(folder / "s"),
            log=str(self._settings.log_dir / log_name(spec.model)),
            spawned_at=self._clock.wall(),
        )

    def _order(self, spec: LaunchSpec, draft: ChildRecord) -> dict[str, Any]:
        argv, env = spec.command(port=draft.port, key=draft.key)
        folder = Path(draft.socket).parent
        cwd = str(folder / "work")
        given = {"PYTHONUNBUFFERED": "1"} | env  # last words must not die in a buffer
        ours = {"PWD": cwd, processes.TREE_VARIABLE: str(folder)}
        stop: dict[str, Any] = stop_request(spec.stop)
        if spec.stop.command:
            stop["command"] = fill_stop(spec.stop.command, draft)
        return {
            "argv": list(argv),
            "env": inherited(self._settings.environ) | given | ours,
            "folder": str(folder),
            "cwd": cwd,
            "links": [list(link) for link in spec.links],
            "socket": draft.socket,
            "log": draft.log,
            "log_bytes": self._settings.log_bytes,
            "adopt_within": self._settings.adopt_within,
            "stop": stop,
            "title": shlex.join(word.replace(draft.key, "***") if draft.key else word for word in argv),
            "record": draft.to_json(),
        }

    async def _launch(self, spec: LaunchSpec, draft: ChildRecord, listener: ChildListener) -> None:
        folder = Path(draft.socket).parent
        try:
            shim, sock = await asyncio.to_thread(self._start_shim, draft)
        except OSError as error:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            listener.spawn_failed(f"cannot start a shim in {folder}: {error}")
            return
        link = await ShimLink.over(sock)
        with _letting_go(shim, link):
            try:
                answer = await link.ask(self._order(spec, draft), timeout=ANSWER_WITHIN)
                failure = str(answer.get("error", ""))
            except ShimGoneError as error:
                answer, failure = {}, f"{error}; see {draft.log}"
            record = record_from_json(answer.get("record") or {})
            if record is None:
                await self._clear(draft, shim)
                listener.spawn_failed(failure or f"the shim's answer makes no sense; see {draft.log}")
                return
            child = ShimChild(record, link)
            listener.spawned(child)
            await self._follow(child, link, listener, shim)

    def _start_shim(self, draft: ChildRecord) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """The shim's process, and our end of the pair whose other end is its stdin."""
        folder = Path(draft.socket).parent
        folder.mkdir(mode=0o700)
        Path(draft.log).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        with theirs, open(draft.log, "ab", opener=_private) as words:
            try:
                shim = subprocess.Popen(  # noqa: S603 - our own interpreter and our own file
                    [self._settings.python, "-I", "-S", str(SHIM), draft.model],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=words,
                    cwd="/",
                    env=inherited(self._settings.environ),
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        return shim, ours

    # following

    async def _follow(
        self,
        child: ShimChild,
        link: ShimLink,
        listener: ChildListener,
        shim: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Until the tree is empty. A shim that hangs up before it said so is dead: what it held is ended."""
        while (message := await link.receive()) is not None:
            if message.get("event") == "output":
                child.heard(message)
            elif message.get("event") == "exited":
                listener.exited(exit_report(message.get("exit") or {}))
                link.send({"op": "collect"})
                await link.ended()
                await self._clear(child.record, shim)
                return
        ended = await self._clear(child.record, shim, just_died=True)
        log.warning("shim_lost", model=child.record.model, shim_pid=child.record.shim_pid, killed=ended)
        listener.exited(ExitReport(None, tail=child.tail, lost=True))

    async def _clear(
        self, record: ChildRecord, shim: subprocess.Popen[bytes] | None = None, *, just_died: bool = False
    ) -> int:
        """Afterwards nothing of this shim is left: itself, its tree, its folder. Returns how many died."""
        return await asyncio.to_thread(_clear_away, record, shim, just_died=just_died)

    # adopting

    async def survivors(self) -> tuple[ChildRecord, ...]:
        """Records of the living shims in the run directory; what is left of dead ones is ended and removed.

        A shim whose tree ended meanwhile counts: attaching to it gives the exit report. One that ends its
        tree does not: it was told to by a daemon that is gone, and is helped to be quick.
        """
        folders = await asyncio.to_thread(lambda: sorted(self._settings.run_dir.iterdir()))
        found = await asyncio.gather(*(self._look(folder) for folder in folders if folder.is_dir()))
        alive = tuple(record for record in found if record is not None)
        sockets = {record.socket for record in alive}
        for record in self._recorded():
            if record.socket not in sockets and record.boot_id == self._boot_id:
                ended = await self._clear(record)
                if ended:
                    log.warning("remains_ended", model=record.model, pid=record.pid, killed=ended)
        return alive

    async def _look(self, folder: Path) -> ChildRecord | None:
        """Who lives in a folder of the run directory."""
        record: ChildRecord | None = None
        pid: int | None = None
        try:
            link = await self._reach(folder / "s")
            with contextlib.closing(link):
                pid = link.peer_pid()
                answer = await link.ask({"op": "status"})
                record = record_from_json(answer.get("record") or {})
                if record is not None and answer.get("phase") in ENDING:
                    await self._hasten(record, link)
                    return None
        except ShimGoneError as error:
            log.info("dead_shim_found", folder=str(folder), reason=str(error))
        if record is not None and record.boot_id == self._boot_id and pid in (None, record.shim_pid):
            return record
        # It does not answer, or speaks what we do not understand: nobody can ever adopt it.
        ended = await asyncio.to_thread(_end_silent, folder, pid)
        log.warning("shim_removed", folder=str(folder), killed=ended)
        return None

    async def _hasten(self, record: ChildRecord, link: ShimLink) -> None:
        """Kill a tree that is being ended, and wait until nothing is left of it."""
        link.send({"op": "attach", "adopt_within": 0})
        link.send({"op": "kill"})
        while (message := await link.receive()) is not None:
            if message.get("event") == "exited":
                link.send({"op": "collect"})
        await self._clear(record)
        log.info("ending_tree_killed", model=record.model, incarnation=record.incarnation)

    async def _reach(self, path: Path) -> ShimLink:
        """A link, waiting for a socket that is about to be made."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HALF_STARTED
        while True:
            try:
                return await ShimLink.to(path)
            except ShimGoneError:
                if not path.parent.is_dir() or path.is_socket() or loop.time() > deadline:  # noqa: ASYNC240 - a stat
                    raise
            moment: asyncio.Future[None] = loop.create_future()
            self._clock.call_later(0.05, partial(_finish, moment))
            await moment

    def attach(self, record: ChildRecord, listener: ChildListener) -> None:
        """Take over a survivor. `spawned` follows, or `spawn_failed` when it is gone."""
        self._tasks.spawn(self._attach(record, listener), name=f"attach {record.model} {record.incarnation}")

    async def _attach(self, record: ChildRecord, listener: ChildListener) -> None:
        try:
            link = await ShimLink.to(Path(record.socket))
        except ShimGoneError as error:
            await self._clear(record)
            listener.spawn_failed(str(error))
            return
        with contextlib.closing(link):
            request = {"op": "attach", "adopt_within": self._settings.adopt_within}
            try:
                answer = await link.ask(request)
            except ShimGoneError as error:
                await self._clear(record)
                listener.spawn_failed(str(error))
                return
            child = ShimChild(record, link)
            child.heard(answer)
            listener.spawned(child)
            await self._follow(child, link, listener)


def exit_report(data: Mapping[str, Any]) -> ExitReport:
    """The shim's report as ours."""
    return ExitReport(
        code=data.get("code"),
        signal=data.get("signal"),
        tail=tuple(str(line) for line in data.get("tail", ())),
    )


def _finish(moment: asyncio.Future[None]) -> None:
    if not moment.done():
        moment.set_result(None)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextlib.contextmanager
def _letting_go(shim: subprocess.Popen[bytes], link: ShimLink) -> Iterator[None]:
    """Hang up at the end. A shim that lives on (the daemon is going) is not our child to wait for."""
    try:
        yield
    finally:
        link.close()
        if shim.poll() is None:
            shim.returncode = 0  # or Popen complains that we left a child behind, which is the point


def _clear_away(record: ChildRecord, shim: subprocess.Popen[bytes] | None, *, just_died: bool) -> int:
    """Blocks: ends the shim if it still lives, then its remains, then its folder."""
    if shim is not None:
        try:
            shim.wait(2.0)
        except subprocess.TimeoutExpired:
            shim.kill()
            shim.wait()
    else:
        row = processes.read(record.shim_pid)
        if row is not None and processes.same_start(row.started, record.shim_started):
            processes.wait_gone(row, 2.0)
            processes.kill(row)
    folder = str(Path(record.socket).parent)
    ended = processes.end_remains(folder, shim_pid=record.shim_pid, group=record.pid, just_died=just_died)
    shutil.rmtree(folder, ignore_errors=True)
    return ended


def _end_silent(folder: Path, pid: int | None) -> int:
    """Blocks: ends a shim that cannot be talked to, and what it held."""
    row = processes.read(pid) if pid else None
    if row is not None:
        processes.kill(row)
    ended = processes.end_remains(str(folder))
    shutil.rmtree(folder, ignore_errors=True)
    return ended
