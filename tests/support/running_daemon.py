"""A real daemon in a process of its own, for rings 4 and 5.

It gets a home of its own, so that nothing of the machine's user (configuration, caches, engines) is seen, and
whatever it leaves behind is found and ended by `close`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import yaml

from tests.support.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
FAKE_ENGINE = ROOT / "tests" / "support" / "fake_engine.py"


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def scripted(*knobs: str, **model_keys: object) -> dict[str, object]:
    """A model entry served by the scripted engine with *knobs*."""
    cmd = [sys.executable, "-S", str(FAKE_ENGINE), "--port", "{port}", "--model", "{model}", *knobs]
    return {"cmd": cmd, **model_keys}


@dataclass
class RunningDaemon:
    """`modelyard serve` with *settings*; a context manager."""

    folder: Path
    settings: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    by_file: bool = False
    """It listens where *settings* say, which include `port`; not where an option does."""

    @property
    def url(self) -> str:
        """Base address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """Everything it has written."""
        path = self.folder / "daemon.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def environment(self) -> dict[str, str]:
        """Of the daemon: a home of its own."""
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LC_ALL", "TMPDIR")}
        return {**kept, "HOME": str(home), **self.env}

    def program(self) -> list[str]:
        """What stands before the command's name."""
        return [sys.executable, "-m", "modelyard"]

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it and return at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "modelyard.yaml"
        quiet = {
            "endpoints": [],
            "discover": {"hub_cache": False, "demo": False},
            "log": {"format": "json", "level": "debug"},
            "state_dir": str(self.folder / "state"),
        }
        config.write_text(yaml.safe_dump({**quiet, **self.settings}))
        command = [*self.program(), "serve", "--config", str(config)]
        with (self.folder / "daemon.log").open("ab") as out:
            self.process = subprocess.Popen(
                command if self.by_file else [*command, "--listen", f"127.0.0.1:{self.port}"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env={**self.environment, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        return self.process

    def start(self) -> Self:
        """Start it and wait until it serves."""
        process = self.spawn()

        def healthy() -> bool:
            assert process.poll() is None, f"the daemon ended with {process.returncode}:\n{self.log}"
            try:
                return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        eventually(healthy, within=20, what=f"the daemon to serve; its log:\n{self.log}")
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"daemon's log:\n{self.log[-6000:]}")
        self.close()

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def kill(self) -> None:
        """SIGKILL to the daemon alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        """Stop it if it runs, and assert that nothing of it is left."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        left = self.descendants()
        for pid in left:
            psutil.Process(pid).kill()
        assert not left, f"left behind: {left}"

    def descendants(self) -> list[int]:
        """Live processes that belong to this daemon's folder: its shims and engines, wherever they are."""
        mark, found = str(self.folder), []
        for process in psutil.process_iter(["pid", "cmdline", "cwd", "status"]):
            info = process.info
            if info["status"] == psutil.STATUS_ZOMBIE or info["pid"] == os.getpid():
                continue
            words = [*(info["cmdline"] or []), info["cwd"] or ""]
            if any(mark in word for word in words):
                found.append(info["pid"])
        return found

    # -- asking it

    def status(self) -> dict[str, Any]:
        """`/api/status`."""
        answer = httpx.get(f"{self.url}/api/status", timeout=5)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def model(self, name: str) -> dict[str, Any]:
        """One model of it."""
        return next(model for model in self.status()["models"] if model["id"] == name)

    def chat(self, model: str, text: str = "hello", **over: Any) -> httpx.Response:
        """One chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **over}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)

    @contextmanager
    def stream(self, model: str, text: str = "hello", **over: Any) -> Iterator[httpx.Response]:
        """One streamed chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True, **over}
        url = f"{self.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, timeout=60) as answer:
            yield answer


def events(answer: httpx.Response) -> list[Any]:
    """The data events of a stream, parsed; `"[DONE]"` as it is."""
    found: list[Any] = []
    for line in answer.iter_lines():
        if line.startswith("data: "):
            text = line.removeprefix("data: ")
            found.append(text if text == "[DONE]" else json.loads(text))
    return found
