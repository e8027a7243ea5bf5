"""Ring 4: the real daemon under what a service manager does to it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
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
