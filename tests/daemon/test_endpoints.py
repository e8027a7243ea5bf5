"""Ring 4: servers that run already: merged, watched, left out while they are down, and taken back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.eventually import eventually
from tests.support.running_daemon import FAKE_ENGINE, RunningDaemon, free_port, scripted

pytestmark = pytest.mark.process


@contextmanager
def outside(port: int, model: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server of somebody else's that serves *model*."""
    command = [sys.executable, "-S", str(FAKE_ENGINE), "--port", str(port), "--model", model]
    with subprocess.Popen(command) as server:
        try:
            yield server
        finally:
            server.kill()


def endpoint(name: str, port: int, **over: Any) -> dict[str, Any]:
    return {"name": name, "url": f"http://127.0.0.1:{port}", "health_every": "0.3s", **over}


def listed(daemon: RunningDaemon) -> set[str]:
    return {model["id"] for model in httpx.get(f"{daemon.url}/v1/models").json()["data"]}


def pid_of(answer: httpx.Response) -> int:
    """Of the process that served it."""
    return int(answer.json()["choices"][0]["message"]["content"].split(" pid ")[1].split()[0])


def test_a_local_model_wins_and_the_servers_is_always_found_by_its_full_name(tmp_path: Path) -> None:
    port = free_port()
    with outside(port, "shared") as server:
        settings = {"endpoints": [endpoint("box", port)], "models": {"shared": scripted()}}
        with RunningDaemon(tmp_path, settings) as daemon:
            eventually(lambda: listed(daemon) == {"shared", "shared@box"})
            assert pid_of(daemon.chat("shared")) != server.pid
            assert pid_of(daemon.chat("shared@box")) == server.pid


def test_of_two_servers_with_one_name_the_first_has_it(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    with outside(ports[0], "twin") as first, outside(ports[1], "twin") as second:
        settings = {"endpoints": [endpoint("one", ports[0]), endpoint("two", ports[1])]}
        with RunningDaemon(tmp_path, settings) as daemon:
            eventually(lambda: listed(daemon) == {"twin", "twin@two"})
            served = {name: pid_of(daemon.chat(name)) for name in ("twin", "twin@one", "twin@two")}
            assert served == {"twin": first.pid, "twin@one": first.pid, "twin@two": second.pid}


def test_a_server_is_left_out_while_it_is_down_and_taken_back(tmp_path: Path) -> None:
    port = free_port()
    with RunningDaemon(tmp_path, {"endpoints": [endpoint("box", port)]}) as daemon:
        assert daemon.chat("x@box").status_code == 404
        for _ in range(2):
            with outside(port, "x"):
                eventually(lambda: listed(daemon) == {"x"})
                assert daemon.chat("x").status_code == 200
            eventually(lambda: listed(daemon) == set())
            assert daemon.chat("x").json()["error"]["code"] == "model_not_found"


def test_a_request_that_fails_there_has_the_server_looked_at_at_once(tmp_path: Path) -> None:
    port = free_port()
    with outside(port, "x") as server:
        settings = {"endpoints": [endpoint("box", port, health_every="1h")]}
        with RunningDaemon(tmp_path, settings) as daemon:
            eventually(lambda: listed(daemon) == {"x"})
            server.kill()
            server.wait()
            assert daemon.chat("x").json()["error"]["code"] in ("engine_unreachable", "engine_crashed")
            eventually(lambda: listed(daemon) == set())


def test_a_virtual_name_goes_on_to_a_server_when_the_own_model_cannot_be_had(tmp_path: Path) -> None:
    port = free_port()
    with outside(port, "x") as server:
        settings = {
            "endpoints": [endpoint("box", port)],
            "models": {"bad": scripted("--exit-at-start")},
            "virtual": {"smart": {"models": ["bad", "x@box"]}},
        }
        with RunningDaemon(tmp_path, settings) as daemon:
            eventually(lambda: "x" in listed(daemon))
            assert pid_of(daemon.chat("smart")) == server.pid
