"""Situations in which routers like this one have been seen to fail, with a real daemon: each must go well.

A request forwarded long after the engine answered, a configuration edited elsewhere that ends a loaded model,
a child that lives on unknown after a crash, a stranger on the model's port that is believed.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.support.eventually import crowded, eventually
from tests.support.running_daemon import FAKE_ENGINE, RunningDaemon, scripted
from tests.support.trees import is_alive, stats

pytestmark = pytest.mark.process

LAG = 0.05
"""Seconds from the engine's first answer to the request that waited for it."""


@pytest.mark.parametrize(
    "late", [("--bind-after", "1.1"), ("--ready-after", "1.1")], ids=["binds late", "503"]
)
def test_a_request_is_forwarded_as_soon_as_the_engine_answers(tmp_path: Path, late: tuple[str, ...]) -> None:
    names = [f"m{number}" for number in range(5)]
    with RunningDaemon(tmp_path, {"models": {name: scripted(*late) for name in names}}) as daemon:
        lags = []
        for name in names:
            assert daemon.chat(name).status_code == 200
            seen = stats(daemon.model(name)["port"])
            lags.append(seen["first_asked"] - seen["answers_since"])
    print("lag in ms:", [round(1000 * lag, 1) for lag in lags])
    assert statistics.median(lags) < LAG * crowded()


def test_a_configuration_edited_elsewhere_leaves_a_loaded_model_alone(tmp_path: Path) -> None:
    models = {"a": scripted("--chunks", "40", "--chunk-interval", "0.05"), "b": scripted()}
    with RunningDaemon(tmp_path, {"models": models}) as daemon:
        daemon.chat("a", max_tokens=1)
        pid = daemon.model("a")["pid"]
        config = tmp_path / "modelyard.yaml"
        written = yaml.safe_load(config.read_text())
        written["models"]["b"]["ttl"] = "1h"
        written["models"]["c"] = scripted()
        with daemon.stream("a") as answer:
            lines = answer.iter_lines()
            next(lines)
            config.write_text("# edited\n" + yaml.safe_dump(written))
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
            eventually(lambda: httpx.get(f"{daemon.url}/v1/models/c").status_code == 200)
            assert "data: [DONE]" in list(lines)
        assert daemon.model("a")["pid"] == pid
        assert daemon.model("a")["starts"] == 1


def test_after_a_crash_of_the_daemon_its_model_is_known_and_serves_on(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted("--setsid-child")}}) as daemon:
        daemon.chat("a")
        pid = daemon.model("a")["pid"]
        daemon.kill()
        daemon.start()
        eventually(lambda: daemon.model("a")["state"] == "ready")
        assert daemon.model("a")["pid"] == pid
        assert f"pid {pid}" in daemon.chat("a").json()["choices"][0]["message"]["content"]
        children = stats(daemon.model("a")["port"])["children"]
        assert daemon.stop() == 0
        assert not any(is_alive(child) for child in (pid, *children))


class Stranger(http.server.BaseHTTPRequestHandler):
    """Says yes to everything, as the engine would."""

    def do_GET(self) -> None:
        self._say({"status": "ok", "data": [{"id": "a"}]})

    def do_POST(self) -> None:
        self._say({"choices": [{"message": {"content": "i am a stranger"}}]})

    def _say(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@contextmanager
def stranger(port: int) -> Iterator[None]:
    """A server of somebody else's on *port*."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Stranger)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_stranger_on_the_models_port_is_not_believed_and_the_start_is_retried(tmp_path: Path) -> None:
    slow = scripted("--bind-after", "1.0", "--exit-on-taken-port")
    with RunningDaemon(tmp_path, {"models": {"a": slow}}) as daemon:
        answers: list[httpx.Response] = []
        asker = threading.Thread(target=lambda: answers.append(daemon.chat("a")))
        asker.start()
        port = eventually(lambda: daemon.model("a")["port"], what="a port")
        with stranger(port):
            asker.join(30)
            moved = daemon.model("a")["port"]
        assert answers[0].status_code == 200
        assert "served by a" in answers[0].json()["choices"][0]["message"]["content"]
        assert moved != port
        assert "port_taken" in daemon.log


def test_a_child_that_ignores_term_does_not_delay_another_models_request(tmp_path: Path) -> None:
    settings = {
        "models": {
            "deaf": scripted("--ignore-term", "--setsid-child", ttl="0.3s"),
            "b": scripted(),
        },
        "start": {"stop_grace": "6s"},
    }
    with RunningDaemon(tmp_path, settings) as daemon:
        daemon.chat("deaf")
        victim = psutil.Process(daemon.model("deaf")["pid"])
        assert str(FAKE_ENGINE) in victim.cmdline()
        eventually(lambda: daemon.model("deaf")["state"] == "stopping", what="the idle one to be stopped")
        assert daemon.chat("b").status_code == 200
        assert daemon.model("deaf")["state"] == "stopping"
        assert is_alive(victim.pid)
        os.kill(victim.pid, signal.SIGKILL)
