"""`modelyard restart` of a daemon with TLS, with a socket file, and with sockets of a service manager."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.certificates import issue
from tests.support.eventually import eventually
from tests.support.running_daemon import ROOT, RunningDaemon, free_port, scripted
from tests.support.trees import clean_folder

pytestmark = pytest.mark.process

ACTIVATE = shutil.which("systemd-socket-activate")
SLOW = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 60}


@pytest.fixture
def folder() -> Iterator[Path]:
    """One whose path is short enough for a socket."""
    with clean_folder() as path:
        yield path


@dataclass
class Ways:
    """The same daemon by two addresses."""

    secure: httpx.Client
    by_file: httpx.Client

    def both(self) -> tuple[httpx.Client, httpx.Client]:
        return self.secure, self.by_file


@contextmanager
def ways(port: int, path: Path, trusting: ssl.SSLContext) -> Iterator[Ways]:
    transport = httpx.HTTPTransport(uds=str(path))
    with (
        httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusting, timeout=30) as secure,
        httpx.Client(base_url="http://localhost", transport=transport, timeout=30) as by_file,
    ):
        yield Ways(secure, by_file)


def pid(client: httpx.Client) -> int:
    """Of the daemon that answers a fresh connection."""
    found: int = client.get("/api/status", headers={"Connection": "close"}).json()["pid"]
    return found


def handed_over_under_streams(found: Ways) -> int:
    """Hand over while an answer is streamed on each of the two addresses; the new process."""
    before = pid(found.secure)
    with (
        found.secure.stream("POST", "/v1/chat/completions", json=SLOW) as one,
        found.by_file.stream("POST", "/v1/chat/completions", json=SLOW) as two,
    ):
        readers = [answer.iter_lines() for answer in (one, two)]
        for reader in readers:
            assert next(reader).startswith("data: ")
        answer = found.by_file.post("/api/restart", headers={"Connection": "close"})
        assert answer.status_code == 200, answer.text
        after: int = answer.json()["pid"]
        assert after != before
        for client in found.both():
            assert pid(client) == after
        for reader in readers:
            words = [line for line in reader if line]
            assert words[-1] == "data: [DONE]"
            assert len(words) > 50, "what was streamed went on"
    return after


def test_streams_outlast_it_and_new_clients_find_the_new_process(folder: Path) -> None:
    tls, trusting = issue(folder)
    secure, path = free_port(), folder / "yard.sock"
    models = {"a": scripted("--chunks", "60", "--chunk-interval", "0.05")}
    daemon = RunningDaemon(folder, {"models": models, "tls": tls, "socket_mode": "660"}, by_file=True)
    daemon.settings["listen"] = [f"127.0.0.1:{daemon.port}", f"https://127.0.0.1:{secure}", f"unix:{path}"]
    with daemon, ways(secure, path, trusting) as found:
        kept = http.client.HTTPSConnection("127.0.0.1", secure, context=trusting, timeout=20)
        kept.request("GET", "/health")
        assert kept.getresponse().read()
        handed_over_under_streams(found)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        kept.request("GET", "/health")
        answer = kept.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (200, "close")
        kept.close()
        # Who has not got through yet does so, asks once, and is told to go.
        late = socket.create_connection(("127.0.0.1", secure), 20)
        handed_over_under_streams(found)
        with trusting.wrap_socket(late, server_hostname="127.0.0.1") as through:
            through.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"connection: close" in through.recv(4096).lower()
        assert daemon.status()["listen"] == daemon.settings["listen"]
        assert daemon.stop() == 0
        assert not path.exists(), "the last one removes the socket file"


def test_a_connection_of_a_limit_is_free_again_after_a_hand_over(folder: Path) -> None:
    """Handshakes that the old process holds are not the new one's."""
    tls, trusting = issue(folder)
    secure = free_port()
    settings: dict[str, Any] = {"models": {"a": scripted()}, "tls": tls, "limits": {"connections": 4}}
    daemon = RunningDaemon(folder, settings, by_file=True)
    daemon.settings["listen"] = [f"127.0.0.1:{daemon.port}", f"https://127.0.0.1:{secure}"]
    with daemon:
        silent = [socket.create_connection(("127.0.0.1", secure), 5) for _ in range(3)]

        def full() -> bool:
            try:
                with httpx.Client(verify=trusting) as client:
                    return client.get(f"https://127.0.0.1:{secure}/health").status_code != 200
            except httpx.TransportError:
                return True

        assert httpx.post(f"{daemon.url}/api/restart", timeout=60).status_code == 200
        assert not full()
        silent += [socket.create_connection(("127.0.0.1", secure), 5) for _ in range(4)]
        eventually(full, what="handshakes to fill the limit")
        for one in silent:
            one.close()
        eventually(lambda: not full(), what="their places to be free again")


@dataclass
class Passed(RunningDaemon):
    """A daemon whose sockets a service manager opens: one that speaks TLS, and a file."""

    secure: int = field(default_factory=free_port)

    @property
    def path(self) -> Path:
        return self.folder / "yard.sock"

    def spawn(self) -> subprocess.Popen[bytes]:
        config = self.folder / "modelyard.yaml"
        fixed = {
            "endpoints": [],
            "state_dir": str(self.folder / "state"),
            "discover": {"hub_cache": False, "demo": False},
            "log": {"format": "json"},
            "listen": [f"https://127.0.0.1:{self.secure}", f"unix:{self.path}"],
        }
        config.write_text(yaml.safe_dump({**fixed, **self.settings}))
        variables = {**self.environment, "PYTHONPATH": str(ROOT)}
        words = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
        assert ACTIVATE is not None
        with (self.folder / "daemon.log").open("ab") as out:
            self.process = subprocess.Popen(
                [
                    *(ACTIVATE, "-l", f"127.0.0.1:{self.secure}", "-l", str(self.path), *words),
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
def test_a_managers_sockets_speak_tls_and_stay_the_managers(folder: Path) -> None:
    tls, trusting = issue(folder)
    daemon = Passed(
        folder, {"models": {"a": scripted("--chunks", "60", "--chunk-interval", "0.05")}, "tls": tls}
    )
    daemon.spawn()
    eventually(lambda: "Listening on" in daemon.log)
    try:
        with ways(daemon.secure, daemon.path, trusting) as found:
            # The first connection starts it, by the address that speaks TLS.
            assert found.secure.get("/health").status_code == 200
            listed = found.by_file.get("/api/status").json()["listen"]
            assert listed == [f"https://127.0.0.1:{daemon.secure}", f"unix:{daemon.path}"]
            handed_over_under_streams(found)
            assert found.secure.get("/api/status").json()["listen"] == listed
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(40) == 0
        assert daemon.path.exists(), "it is the manager's to remove"
    finally:
        daemon.close()
