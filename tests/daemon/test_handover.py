"""`modelyard restart` under load: no request fails, no stream is cut, the engines stay the same processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted

ROUNDS: Final = max(2, int(os.environ.get("MODELYARD_ROUNDS", "0")) // 5)
"""Hand-overs, half of them with a budget that must evict the model that is being streamed."""
pytestmark = [pytest.mark.process, pytest.mark.timeout(60 + 30 * ROUNDS)]

RATE: Final = 50
STREAMS: Final = 20
STREAM_CHUNKS: Final = 160
STREAMER: Final = ("--chunks", str(STREAM_CHUNKS), "--chunk-interval", "0.1")


@dataclass
class Load:
    """Requests at a steady rate, and streams beside them; what became of each."""

    url: str
    failed: list[str] = field(default_factory=list)
    served: int = 0
    texts: set[str] = field(default_factory=set)
    waits: list[float] = field(default_factory=list)
    outlasting: int = 0
    """Streams that were still open when the new daemon served."""

    async def one(self, http: httpx.AsyncClient, model: str) -> None:
        """A plain request."""
        began = time.monotonic()
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
        try:
            answer = await http.post(f"{self.url}/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            self.failed.append(repr(error))
            return
        if answer.status_code != 200:
            self.failed.append(f"{answer.status_code} {answer.text[:200]}")
            return
        self.served += 1
        self.waits.append(time.monotonic() - began)
        self.texts.add(answer.json()["choices"][0]["message"]["content"])

    async def stream(self, http: httpx.AsyncClient, model: str, started: asyncio.Semaphore) -> None:
        """A long stream, which must come to its end with every word."""
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": True}
        words, last, is_first = 0, "", True
        try:
            async with http.stream("POST", f"{self.url}/v1/chat/completions", json=body) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        words, last = words + ('"content"' in line), line
                        if is_first:
                            started.release()
                            is_first = False
        except httpx.HTTPError as error:
            self.failed.append(f"stream: {error!r} after {words}")
            return
        if last != "data: [DONE]" or words != STREAM_CHUNKS:
            self.failed.append(f"stream: cut after {words} words, last {last[:200]}")
        self.served += 1

    async def steadily(self, http: httpx.AsyncClient, model: str, until: asyncio.Event) -> None:
        """RATE requests a second until told to stop, then the rest of the answers."""
        loop = asyncio.get_running_loop()
        began, number = loop.time(), 0
        async with asyncio.TaskGroup() as group:
            while not until.is_set():
                group.create_task(self.one(http, model))
                number += 1
                try:
                    async with asyncio.timeout(max(0.0, began + number / RATE - loop.time())):
                        await until.wait()
                except TimeoutError:
                    continue


async def hand_over_under_load(daemon: RunningDaemon, *, streamed: str, asked: str) -> Load:
    """One restart while *streamed* streams and *asked* is asked."""
    load = Load(daemon.url)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(timeout=90, limits=limits) as http:
        started = asyncio.Semaphore(0)
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(load.stream(http, streamed, started)) for _ in range(STREAMS)]
            for _ in range(STREAMS):
                await started.acquire()
            group.create_task(load.steadily(http, asked, enough))
            answer = await http.post(f"{daemon.url}/api/restart")
            assert answer.status_code == 200, answer.text
            async with httpx.AsyncClient(timeout=30) as fresh:  # a kept connection is the old daemon's
                status = (await fresh.get(f"{daemon.url}/api/status")).json()
            assert status["pid"] == answer.json()["pid"]
            open_then = sum(not stream.done() for stream in streams)
            await asyncio.wait(streams)
            enough.set()
    load.outlasting = open_then
    return load


def pids(daemon: RunningDaemon, models: Sequence[str]) -> list[int]:
    """The engines' processes."""
    return [daemon.model(model)["pid"] for model in models]


def settings(**memory: Any) -> dict[str, Any]:
    """Two models; *memory* is the budget."""
    return {
        "models": {
            "a": scripted(*STREAMER, memory="400MB", concurrency=None),
            "b": scripted(memory="400MB"),
        },
        "admission": {"queue_per_model": 4000, "queue_total": 4000, "max_wait": "60s"},
        "memory": memory,
    }


def test_hand_overs_under_load_lose_nothing(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, settings(host="1GB")) as daemon:
        for model in "ab":
            daemon.chat(model, max_tokens=1)
        before = pids(daemon, "ab")
        served = outlasting = 0
        for _ in range((ROUNDS + 1) // 2):
            load = asyncio.run(hand_over_under_load(daemon, streamed="a", asked="b"))
            assert load.failed == []
            served += load.served
            outlasting += load.outlasting
            assert pids(daemon, "ab") == before
            assert load.texts == {f"served by b pid {before[1]}"}
        assert outlasting, "every stream had ended before its hand-over: it proved nothing"
        print(f"{(ROUNDS + 1) // 2} hand-overs, {served} served, longest wait {max(load.waits):.2f} s")


def test_what_the_old_daemon_streams_is_not_evicted_by_the_new_one(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, settings(host="500MB")) as daemon:
        for _ in range(ROUNDS // 2):
            daemon.chat("a", max_tokens=1)
            before = pids(daemon, "a")
            load = asyncio.run(hand_over_under_load(daemon, streamed="a", asked="b"))
            assert load.failed == []
            assert daemon.model("a")["state"] == "stopped"
            assert daemon.model("b")["state"] == "ready"
            assert str(before[0]) in daemon.log
        print(f"{ROUNDS // 2} hand-overs with eviction, {load.served} served in the last")


def test_a_new_process_that_does_not_come_up_changes_nothing(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}) as daemon:
        daemon.chat("a")
        before = pids(daemon, "a")
        config = tmp_path / "modelyard.yaml"
        good = config.read_text()
        config.write_text("models: 7\n")
        answer = httpx.post(f"{daemon.url}/api/restart", timeout=60)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "handover_failed"
        assert daemon.chat("a").status_code == 200
        assert pids(daemon, "a") == before
        config.write_text(good)
        assert httpx.post(f"{daemon.url}/api/restart", timeout=60).status_code == 200
        assert pids(daemon, "a") == before


def test_a_stop_reaches_the_successor_through_whoever_stands_in(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted("--setsid-child")}}) as daemon:
        daemon.chat("a")
        for _ in range(2):
            httpx.post(f"{daemon.url}/api/restart", timeout=60).raise_for_status()
        assert daemon.chat("a").status_code == 200
        assert daemon.stop() == 0
        assert daemon.descendants() == []


def test_a_service_manager_is_told_the_new_main_process(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(20)
        env = {"NOTIFY_SOCKET": str(path)}
        with RunningDaemon(tmp_path, {"models": {"a": scripted()}}, env=env) as daemon:
            daemon.chat("a")
            before = pids(daemon, "a")
            new: int = httpx.post(f"{daemon.url}/api/restart", timeout=60).json()["pid"]
            said = ""
            while "MAINPID" not in said:
                said = manager.recv(4096).decode()
            assert said == f"MAINPID={new}"
            assert daemon.process is not None
            assert daemon.process.wait(20) == 0
            assert pids(daemon, "a") == before
            os.kill(new, signal.SIGTERM)
            eventually(lambda: not daemon.descendants(), within=20)


def test_a_changed_configuration_is_the_new_processs(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}) as daemon:
        daemon.chat("a")
        before = pids(daemon, "a")
        config = tmp_path / "modelyard.yaml"
        written = yaml.safe_load(config.read_text())
        written["models"]["c"] = scripted()
        written["limits"] = {"keep_alive": "7s"}
        config.write_text(yaml.safe_dump(written))
        httpx.post(f"{daemon.url}/api/restart", timeout=60).raise_for_status()
        assert daemon.chat("c").status_code == 200
        assert pids(daemon, "a") == before
