"""The state directory and its lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.errors import AlreadyRunningError
from supervisor.state_dir import SOCKET_PATH_BYTES, SOCKET_SUFFIX, StateDir, private_folder, run_dir_for


def mode(path: Path) -> int:
    """Permission bits."""
    return path.stat().st_mode & 0o777


def test_everything_in_it_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "state"
    path.mkdir(parents=True, mode=0o755)
    state = StateDir.acquire(path, environ={})
    assert [mode(p) for p in (state.path, state.run_dir, state.log_dir)] == [0o700] * 3
    assert mode(path / "lock") == 0o600
    assert (path / "lock").read_text() == f"{os.getpid()}\n"
    state.release()


def test_a_second_daemon_is_refused_and_told_the_firsts_pid(tmp_path: Path) -> None:
    first = StateDir.acquire(tmp_path)
    with pytest.raises(AlreadyRunningError, match=f"pid {os.getpid()} holds"):
        StateDir.acquire(tmp_path)
    first.release()
    first.release()
    StateDir.acquire(tmp_path).release()


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    state = StateDir.acquire(tmp_path)
    command = [sys.executable, "-S", "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it runs: exec has closed what it closes
        state.release()
        StateDir.acquire(tmp_path).release()
        child.communicate(b"\n")


def test_somebody_elses_folder_and_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    with pytest.raises(PermissionError, match="remove it or set state_dir"):
        private_folder(link)
    if os.geteuid() == 0:
        os.chown(tmp_path / "real", 12345, 12345)
        with pytest.raises(PermissionError, match="owner: uid 12345"):
            private_folder(tmp_path / "real")


def test_the_run_directory_always_has_room_for_a_sockets_name(tmp_path: Path) -> None:
    short = Path("/var/lib/modelyard")
    assert run_dir_for(short, {}) == short / "run"
    long = Path("/home") / ("x" * 120)
    runtime = tmp_path / "r"
    runtime.mkdir()
    by_temp = run_dir_for(long, {})
    assert run_dir_for(long, {}) == by_temp
    assert run_dir_for(long / "other", {}) != by_temp
    assert str(os.geteuid()) in by_temp.name
    if len(str(runtime)) <= 60:
        assert run_dir_for(long, {"XDG_RUNTIME_DIR": str(runtime)}).parent == runtime
    assert len(os.fsencode(by_temp)) + len(SOCKET_SUFFIX) <= SOCKET_PATH_BYTES
