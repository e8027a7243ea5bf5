"""Ring 4: a daemon in a terminal, and what becomes of it when the terminal is closed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.support.eventually import eventually
from tests.support.running_daemon import ROOT, free_port, scripted

pytestmark = pytest.mark.process


class InTerminal:
    """`modelyard serve` with a terminal of its own, which can be closed."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        settings = {
            "models": {"a": scripted(), "b": scripted()},
            "listen": self.url.removeprefix("http://"),
            "state_dir": str(folder / "state"),
            "endpoints": [],
            "discover": {"hub_cache": False, "demo": False},
        }
        self.config = folder / "modelyard.yaml"
        self.config.write_text(yaml.safe_dump(settings))
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelyard", "serve", "--config", str(self.config)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT), "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(theirs)

    def models(self) -> list[str]:
        """What it serves; none while it does not answer."""
        try:
            listed = httpx.get(f"{self.url}/v1/models", timeout=5).json()
        except httpx.TransportError:
            return []
        return [entry["id"] for entry in listed["data"]]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[InTerminal]:
    made = InTerminal(tmp_path)
    try:
        eventually(made.models, within=20, what="the daemon to serve")
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait(10)


def test_a_closed_terminal_stops_the_daemon_and_its_models(daemon: InTerminal) -> None:
    answer = httpx.post(f"{daemon.url}/api/models/a/load", timeout=20).json()
    os.close(daemon.ours)
    daemon.process.send_signal(signal.SIGHUP)  # as the kernel does it to whoever the terminal belongs to
    daemon.process.wait(20)  # with any status: the interpreter cannot flush into a terminal that is gone
    with pytest.raises(ProcessLookupError):
        os.kill(answer["pid"], 0)


def test_the_signal_alone_is_a_reload(daemon: InTerminal) -> None:
    settings = yaml.safe_load(daemon.config.read_text())
    del settings["models"]["b"]
    daemon.config.write_text(yaml.safe_dump(settings))
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: daemon.models() == ["a"], within=10, what="the reload")
    assert daemon.process.poll() is None
    os.close(daemon.ours)
