"""Ring 4: the real daemon under what a service manager does to it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.eventually import eventually
from tests.support.running_daemon import ROOT, RunningDaemon, free_port, scripted

pytestmark = pytest.mark.process


@dataclass
class Ear:
    """A manager's end of $NOTIFY_SOCKET: everything heard so far."""

    path: Path
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)

    def listen(self) -> list[str]:
        """Take in what was said; the lines of all messages so far."""
        while True:
            try:
                self.heard += self._socket.recv(8192).decode().splitlines()
            except BlockingIOError:
                return self.heard

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(tmp_path / "notify")
    yield made
    made.close()


def test_a_manager_hears_ready_status_watchdog_and_stopping(tmp_path: Path, ear: Ear) -> None:
    env = {"NOTIFY_SOCKET": str(ear.path), "WATCHDOG_USEC": "400000"}
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}, env=env) as daemon:
        eventually(lambda: "READY=1" in ear.listen())
        assert any(line.startswith("STATUS=0 ready of 1 models; 0 in flight") for line in ear.heard)
        daemon.chat("a")
        eventually(
            lambda: any(line.startswith("STATUS=1 ready of 1 models") for line in ear.listen()),
            what="the status line to follow",
        )
        eventually(lambda: ear.listen().count("WATCHDOG=1") >= 4)
        assert ear.heard.index("READY=1") < ear.heard.index("WATCHDOG=1")
        assert daemon.stop() == 0
    assert "STOPPING=1" in ear.listen()
    assert any(re.fullmatch(r"EXTEND_TIMEOUT_USEC=\d+", line) for line in ear.heard)
    after = ear.heard[ear.heard.index("STOPPING=1") :]
    assert "READY=1" not in after


def test_a_daemon_that_hangs_falls_silent(tmp_path: Path, ear: Ear) -> None:
    env = {"NOTIFY_SOCKET": str(ear.path), "WATCHDOG_USEC": "100000"}
    with RunningDaemon(tmp_path, {}, env=env) as daemon:
        assert daemon.process is not None
        eventually(lambda: ear.listen().count("WATCHDOG=1") >= 2)
        process = psutil.Process(daemon.process.pid)
        process.suspend()
        eventually(lambda: process.status() == psutil.STATUS_STOPPED)
        before = len(ear.listen())
        with pytest.raises(AssertionError, match="a ping"):
            eventually(lambda: len(ear.listen()) > before, within=0.5, what="a ping")
        process.resume()
        eventually(lambda: len(ear.listen()) > before)


WEDGED = """
import os, sys
from supervisor import scheduler
right = scheduler.decide
def decide(picture, policy):
    if os.path.exists(os.environ["WEDGE"]):
        raise ZeroDivisionError("a bug of the scheduler's")
    return right(picture, policy)
scheduler.decide = decide
from modelyard.__main__ import main
sys.exit(main())
"""
"""A daemon whose scheduler stops deciding while a certain file is there."""


@dataclass
class DaemonThatCanBeWedged(RunningDaemon):
    """Started by way of `WEDGED`."""

    def program(self) -> list[str]:
        """What stands before the command's name."""
        return [sys.executable, "-c", WEDGED]


def test_a_scheduler_that_stops_deciding_silences_the_watchdog_and_ready(tmp_path: Path, ear: Ear) -> None:
    wedge = tmp_path / "wedge"
    env = {"NOTIFY_SOCKET": str(ear.path), "WATCHDOG_USEC": "100000", "WEDGE": str(wedge)}
    with DaemonThatCanBeWedged(tmp_path, {"models": {"a": scripted(), "b": scripted()}}, env=env) as daemon:
        daemon.chat("a")
        eventually(lambda: ear.listen().count("WATCHDOG=1") >= 2)
        wedge.touch()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(daemon.chat, "b")
            stopped = "STATUS=the scheduler has stopped deciding"
            eventually(lambda: any(line.startswith(stopped) for line in ear.listen()))
            refused = httpx.get(f"{daemon.url}/ready")
            assert refused.status_code == 503
            assert "the scheduler has stopped deciding" in refused.json()["error"]["message"]
            assert httpx.get(f"{daemon.url}/health").status_code == 200  # its loop goes round
            before = ear.listen().count("WATCHDOG=1")
            with pytest.raises(AssertionError, match="a ping"):
                eventually(lambda: ear.listen().count("WATCHDOG=1") > before, within=0.5, what="a ping")
            wedge.unlink()
            assert waiting.result(30).status_code == 200  # it was not lost
        eventually(lambda: ear.listen().count("WATCHDOG=1") > before)
        assert httpx.get(f"{daemon.url}/ready").status_code == 200
    assert "a bug of the scheduler's" in daemon.log


def test_a_state_directory_that_cannot_be_written_makes_it_not_ready(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}) as daemon:
        assert httpx.get(f"{daemon.url}/ready").status_code == 200
        logs = tmp_path / "state" / "logs"
        logs.rename(tmp_path / "aside")  # as root, permissions would not do

        def said() -> str:
            answer = httpx.get(f"{daemon.url}/ready")
            return "" if answer.status_code == 200 else str(answer.json()["error"]["message"])

        eventually(lambda: f"{logs} cannot be written" in said(), within=20)
        assert daemon.status()["ready"] is False
        (tmp_path / "aside").rename(logs)
        eventually(lambda: said() == "", within=20)


def test_engines_see_nothing_of_the_managers_variables(tmp_path: Path, ear: Ear) -> None:
    env = {"NOTIFY_SOCKET": str(ear.path), "WATCHDOG_USEC": "30000000"}
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}, env=env) as daemon:
        daemon.chat("a")
        seen = Path(f"/proc/{daemon.model('a')['pid']}/environ")
        if seen.exists():
            names = {word.partition("=")[0] for word in seen.read_text().split("\0")}
            assert names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID"} == set()


# -- socket activation


ACTIVATE = shutil.which("systemd-socket-activate")


@dataclass
class ActivatedDaemon(RunningDaemon):
    """A daemon that is started by the first connection to its port."""

    def spawn(self) -> subprocess.Popen[bytes]:
        """Have the port opened; the daemon is not there yet."""
        config = self.folder / "modelyard.yaml"
        # A dead address: whoever answers does so on the inherited socket.
        config.write_text(
            f"listen: 127.0.0.1:{free_port()}\nendpoints: []\nstate_dir: {self.folder}/state\n"
            f"discover: {{hub_cache: false, demo: false}}\nlog: {{format: json}}\n"
            f"models: {{a: {{cmd: {scripted()['cmd']!r}}}}}\n"
        )
        variables = {**self.environment, "PYTHONPATH": str(ROOT)}
        passed = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
        assert ACTIVATE is not None
        with (self.folder / "daemon.log").open("ab") as out:
            self.process = subprocess.Popen(
                [
                    *(ACTIVATE, "-l", f"127.0.0.1:{self.port}", *passed),
                    *(sys.executable, "-m", "modelyard", "serve", "--config", str(config)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env=variables,
                start_new_session=True,
            )
        return self.process


@pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed")
def test_the_first_connection_starts_the_daemon_and_is_answered(tmp_path: Path) -> None:
    daemon = ActivatedDaemon(tmp_path, {})
    daemon.spawn()
    eventually(lambda: "Listening on" in daemon.log)
    assert "daemon_ready" not in daemon.log
    try:
        answer = httpx.get(f"{daemon.url}/v1/models", timeout=30)
        assert [model["id"] for model in answer.json()["data"]] == ["a"]
        assert daemon.status()["listen"] == [f"127.0.0.1:{daemon.port}"]
        assert "served by a" in daemon.chat("a").text
        assert daemon.stop() == 0
    finally:
        daemon.close()
