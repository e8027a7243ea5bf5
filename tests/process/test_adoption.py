"""Trees outlive their daemon for a while: the next one finds them, and without one nothing is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from registry.engine import StopPolicy
from supervisor.ports import ChildRecord
from supervisor.records import record_from_json
from supervisor.shim_client import SHIM
from tests.support.eventually import eventually, eventually_async
from tests.support.trees import MARK, Recorder, Yard, fake_spec, in_yard, is_alive, marked, stats

pytestmark = pytest.mark.process


@contextmanager
def killed_daemon(folder: Path, adopt_within: float, *knobs: str) -> Iterator[ChildRecord]:
    """The record of a tree whose daemon has just been killed with SIGKILL."""
    command = [sys.executable, "-m", "tests.support.launching_daemon", str(folder), str(adopt_within), *knobs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        record = record_from_json(json.loads(daemon.stdout.readline()))
        daemon.kill()
    assert record is not None
    yield record


def children_of(record: ChildRecord) -> list[int]:
    """The scripted engine's descendants, once it has them all."""

    found: list[int] = eventually(lambda: stats(record.port))["children"]
    return found


def test_the_next_daemon_adopts_the_tree_and_can_stop_it(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        assert await yard.launcher.survivors() == (record,)
        recorder, child = await yard.attach(record)
        assert child.record == record
        assert child.tail == ("hello",)
        assert all(is_alive(pid) for pid in (record.pid, *children))
        child.stop(StopPolicy(grace_seconds=0.3))
        assert (await yard.ended(recorder)).signal == signal.SIGTERM
        assert not any(is_alive(pid) for pid in (record.pid, *children))

    with killed_daemon(folder, 30.0, "--setsid-child", "--stderr-line", "hello") as record:
        children = children_of(record)
        in_yard(folder, story)


def test_without_a_next_daemon_everything_is_gone_after_adopt_within(folder: Path) -> None:
    with killed_daemon(folder, 0.5, "--setsid-child", "--fork-child") as record:
        assert is_alive(record.pid)
        eventually(lambda: not marked(folder), within=10.0, what="no process")
        assert not list((folder / "run").iterdir())


def test_an_adopted_tree_gets_the_new_daemons_patience(folder: Path) -> None:
    async def adopt(yard: Yard) -> None:
        await yard.launcher.survivors()
        await yard.attach(record)

    with killed_daemon(folder, 60.0) as record:
        in_yard(folder, adopt, adopt_within=0.2)
        eventually(lambda: not marked(folder), within=10.0, what="no process")


def test_the_exit_of_a_tree_that_ended_meanwhile_is_reported_to_the_next_daemon(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        assert await yard.launcher.survivors() == (record,)
        recorder, _ = await yard.attach(record)
        report = await yard.ended(recorder)
        assert (report.code, report.tail, report.lost) == (9, ("bye",), False)

    with killed_daemon(
        folder, 30.0, "--stderr-line", "bye", "--exit-after", "0.4", "--exit-code", "9"
    ) as record:
        eventually(lambda: not is_alive(record.pid))
        in_yard(folder, story)


def test_the_loss_of_an_adopted_shim_is_reported_when_its_tree_is_gone(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        await yard.launcher.survivors()
        recorder, _ = await yard.attach(record)
        os.kill(record.shim_pid, signal.SIGKILL)
        assert (await yard.ended(recorder)).lost
        assert not any(is_alive(pid) for pid in (record.pid, *children))

    with killed_daemon(folder, 30.0, "--setsid-child") as record:
        children = children_of(record)
        in_yard(folder, story)


def test_a_daemon_that_ignores_sigchld_does_not_cost_the_exit_status(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder, _ = await yard.launch(fake_spec("--exit-at-start", "--exit-code", "5"))
        assert (await yard.ended(recorder)).code == 5

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        in_yard(folder, story)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_what_is_left_of_a_shim_that_died_with_its_daemon_is_ended(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        assert is_alive(children[0])
        assert await yard.launcher.survivors() == ()
        assert not is_alive(children[0])
        assert not list(yard.run_dir.iterdir())

    with killed_daemon(folder, 30.0, "--setsid-child") as record:
        children = children_of(record)
        os.kill(record.shim_pid, signal.SIGKILL)
        eventually(lambda: not is_alive(record.pid), what="the parent-death signal")
        in_yard(folder, story)


def test_the_journal_finds_what_is_left_when_even_the_folder_is_gone(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        await yard.launcher.survivors()
        assert not is_alive(children[0])

    with killed_daemon(folder, 30.0, "--setsid-child") as record:
        children = children_of(record)
        os.kill(record.shim_pid, signal.SIGKILL)
        here = Path(record.socket).parent
        Path(record.socket).unlink()
        here.rename(folder / "elsewhere")
        in_yard(folder, story, recorded=lambda: (record,))


def test_attaching_to_a_tree_that_is_gone_fails(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        recorder = Recorder()
        yard.launcher.attach(record, recorder)
        await eventually_async(lambda: recorder.failure)
        assert recorder.child is None
        assert "no shim at" in str(recorder.failure)

    with killed_daemon(folder, 0.1) as record:
        eventually(lambda: not marked(folder))
        in_yard(folder, story)


def test_two_daemons_may_hold_a_tree_while_one_hands_over(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        first, child = await yard.launch(fake_spec())
        second, _ = await yard.attach(child.record)
        child.kill()
        assert (await yard.ended(first)).signal == signal.SIGKILL
        await eventually_async(lambda: second.report)

    in_yard(folder, story)


def test_a_folder_without_a_shim_is_removed(folder: Path) -> None:
    (folder / "run" / "deadbeef").mkdir(parents=True)

    async def story(yard: Yard) -> None:
        assert await yard.launcher.survivors() == ()
        assert not list(yard.run_dir.iterdir())

    in_yard(folder, story)


def test_a_shim_that_does_not_answer_is_ended_with_its_tree(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        assert await yard.launcher.survivors() == ()
        assert not is_alive(record.shim_pid)
        assert not is_alive(record.pid)

    with killed_daemon(folder, 30.0) as record:
        os.kill(record.shim_pid, signal.SIGSTOP)
        in_yard(folder, story)


def order(folder: Path, **changes: Any) -> dict[str, Any]:
    """An order as the launcher writes it."""
    here = folder / "run" / "00000001"
    return {
        "argv": ["/bin/sleep", "60"],
        "env": {MARK: str(folder)},
        "folder": str(here),
        "cwd": str(here / "work"),
        "socket": str(here / "s"),
        "log": str(folder / "log"),
        "adopt_within": 0.3,
        "record": {"model": "m", "incarnation": 1},
    } | changes


@pytest.mark.parametrize("cut", [0, 1, 200, None], ids=["nothing", "a byte", "half", "all of the order"])
def test_a_daemon_killed_while_its_shim_starts_leaves_nothing(folder: Path, cut: int | None) -> None:
    (folder / "run" / "00000001").mkdir(parents=True)
    ours, theirs = socket.socketpair()
    line = json.dumps(order(folder)).encode() + b"\n"
    with theirs:
        shim = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SHIM), "m"],
            stdin=theirs.fileno(),
            env={MARK: str(folder)},
            start_new_session=True,
        )
    with ours:
        ours.sendall(line if cut is None else line[:cut])
    shim.wait(10.0)
    assert not marked(folder)
    assert cut is not None or not (folder / "run" / "00000001").exists()
