"""`modelyard restart` under load: no request fails, no stream is cut, the engines stay the same processes."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from tests.support.eventually import eventually, eventually_async
from tests.support.running_daemon import RunningDaemon, scripted

HAND_OVERS: Final = max(5, int(os.environ.get("MODELYARD_ROUNDS", "0")) // 5)
"""Half of them with a budget that must evict the model that is being streamed."""
pytestmark = [pytest.mark.process, pytest.mark.timeout(60 + 30 * HAND_OVERS)]

RATE: Final = 50
"""Requests a second, from before a hand-over until after it."""
STREAMS: Final = 20


@dataclass
class Stream:
    """One long answer, read as it comes."""

    words: int = 0
    done: bool = False

    async def read(self, lines: AsyncIterator[str]) -> None:
        """To its end. Fails for a word that is missing, and for an end that is none."""
        last = ""
        async for line in lines:
            if line.startswith("data: ") and line != "data: [DONE]":
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                word = choice["delta"].get("content", "").strip()
                last = choice["finish_reason"] or ""
                if self.words >= 5 and word:
                    assert word == f"w{self.words - 5}", f"{word} after {self.words} words"
                self.words += bool(word)
            elif line:
                self.done = line == "data: [DONE]"
        assert self.done, f"cut after {self.words} words"
        assert last == "stop"


@dataclass
class Load:
    """Requests at a steady rate, and streams beside them; what became of each."""

    daemon: RunningDaemon
    failed: list[str] = field(default_factory=list)
    served: int = 0
    texts: set[str] = field(default_factory=set)
    waits: list[float] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    rate: float = 0.0
    """Requests a second that were really sent."""

    async def one(self, http: httpx.AsyncClient, model: str) -> None:
        """A plain request."""
        began = time.monotonic()
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
        try:
            answer = await http.post(f"{self.daemon.url}/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            self.failed.append(repr(error))
            return
        if answer.status_code != 200:
            self.failed.append(f"{answer.status_code} {answer.text[:200]}")
            return
        self.served += 1
        self.waits.append(time.monotonic() - began)
        self.texts.add(answer.json()["choices"][0]["message"]["content"])

    async def stream(self, http: httpx.AsyncClient, model: str, stream: Stream) -> None:
        """A long stream, which must come to its end with every word."""
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": True}
        try:
            async with http.stream("POST", f"{self.daemon.url}/v1/chat/completions", json=body) as answer:
                await stream.read(answer.aiter_lines())
        except (httpx.HTTPError, AssertionError) as error:
            self.failed.append(f"stream: {error!r}")

    async def steadily(self, http: httpx.AsyncClient, model: str, until: asyncio.Event) -> None:
        """RATE requests a second until told to stop, then the rest of the answers."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count(1):
                group.create_task(self.one(http, model))
                try:
                    async with asyncio.timeout(max(0.0, began + number / RATE - loop.time())):
                        await until.wait()
                        self.rate = number / (loop.time() - began)
                        return
                except TimeoutError:
                    continue

    @asynccontextmanager
    async def running(self, http: httpx.AsyncClient, *, streamed: str, asked: str) -> AsyncIterator[None]:
        """STREAMS streams of *streamed* that have all begun and do not end before the block does, and RATE
        requests a second to *asked*."""
        end_of_streams(self.daemon).unlink(missing_ok=True)
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            self.streams = [Stream() for _ in range(STREAMS)]
            reading = [group.create_task(self.stream(http, streamed, stream)) for stream in self.streams]
            await self.all_streams_go_on()
            group.create_task(self.steadily(http, asked, enough))
            try:
                yield
            finally:
                end_of_streams(self.daemon).touch()
                await asyncio.wait(reading)
                enough.set()

    async def all_streams_go_on(self) -> None:
        """Fails unless each of them has a further word."""
        before = [stream.words for stream in self.streams]
        await eventually_async(
            lambda: all(stream.words > words for stream, words in zip(self.streams, before, strict=True)),
            within=30,
            what=f"a further word of each stream; {self.failed}",
        )


def end_of_streams(daemon: RunningDaemon) -> Path:
    """When this file is there, the streams end."""
    return daemon.folder / "end-of-streams"


async def hand_over_under_load(daemon: RunningDaemon, *, streamed: str, asked: str) -> Load:
    """One restart while *streamed* streams and *asked* is asked; every stream goes on after it."""
    load = Load(daemon)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with (
        httpx.AsyncClient(timeout=90, limits=limits) as http,
        load.running(http, streamed=streamed, asked=asked),
    ):
        engine = await pid_now(daemon, streamed)
        answer = await http.post(f"{daemon.url}/api/restart")
        assert answer.status_code == 200, answer.text
        assert not any(stream.done for stream in load.streams)
        await load.all_streams_go_on()
        # The new daemon knows the engine that the old one's streams come from, and has not started another.
        assert await pid_now(daemon, streamed, serving=answer.json()["pid"]) == engine
    assert all(stream.done for stream in load.streams), load.failed
    return load


async def pid_now(daemon: RunningDaemon, model: str, *, serving: int | None = None) -> int:
    """The engine's process, as the daemon *serving* knows it."""
    async with httpx.AsyncClient(timeout=30) as fresh:  # a kept connection is the old daemon's
        status = (await fresh.get(f"{daemon.url}/api/status")).json()
    assert serving is None or status["pid"] == serving
    (found,) = (one for one in status["models"] if one["id"] == model)
    pid: int = found["pid"]
    return pid


def pids(daemon: RunningDaemon, models: Sequence[str]) -> list[int]:
    """The engines' processes."""
    return [daemon.model(model)["pid"] for model in models]


def settings(folder: Path, **memory: Any) -> dict[str, Any]:
    """Two models; *memory* is the budget."""
    streamer = ("--chunks", "8", "--chunk-interval", "0.1", "--until", str(folder / "end-of-streams"))
    return {
        "models": {
            "a": scripted(*streamer, memory="400MB", concurrency=None),
            "b": scripted(memory="400MB"),
        },
        "admission": {"queue_per_model": 4000, "queue_total": 4000, "max_wait": "60s"},
        "memory": memory,
    }


def test_hand_overs_under_load_lose_nothing(tmp_path: Path) -> None:
    rounds = (HAND_OVERS + 1) // 2
    with RunningDaemon(tmp_path, settings(tmp_path, host="1GB")) as daemon:
        for model in "ab":
            daemon.chat(model, max_tokens=1)
        before = pids(daemon, "ab")
        served, waits, rates = 0, [], []
        for _ in range(rounds):
            load = asyncio.run(hand_over_under_load(daemon, streamed="a", asked="b"))
            assert load.failed == []
            served += load.served
            waits += load.waits
            rates.append(load.rate)
            assert pids(daemon, "ab") == before
            assert load.texts == {f"served by b pid {before[1]}"}
        print(
            f"{rounds} hand-overs: {served} requests served, at least {min(rates):.0f} a second, 0 failed, "
            f"{rounds * STREAMS} streams outlasted theirs, 0 cut, the same engines; "
            f"longest wait {max(waits):.2f} s"
        )


def test_what_the_old_daemon_streams_is_not_evicted_by_the_new_one(tmp_path: Path) -> None:
    rounds = HAND_OVERS // 2
    with RunningDaemon(tmp_path, settings(tmp_path, host="500MB")) as daemon:
        served, rates = 0, []
        for _ in range(rounds):
            daemon.chat("a", max_tokens=1)
            load = asyncio.run(hand_over_under_load(daemon, streamed="a", asked="b"))
            assert load.failed == []
            assert load.served > 0
            served += load.served
            rates.append(load.rate)
            # Only then, and for those who had waited for its memory.
            assert daemon.model("a")["state"] == "stopped"
            assert daemon.model("b")["state"] == "ready"
        print(
            f"{rounds} hand-overs with an eviction: {served} requests served, at least {min(rates):.0f} a "
            f"second, 0 failed, {rounds * STREAMS} streams outlasted theirs, 0 cut, the same engine"
        )


def test_a_kept_connection_is_answered_for_longer_than_clients_keep_one(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}) as daemon:
        daemon.chat("a")
        kept = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
        kept.request("GET", "/health")
        assert kept.getresponse().read()
        sock = kept.sock
        manager = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
        manager.request("GET", "/health")
        assert manager.getresponse().read()
        httpx.post(f"{daemon.url}/api/restart", timeout=60).raise_for_status()
        # The old daemon has nothing to say about models any more.
        manager.request("POST", "/api/config/apply")
        assert manager.getresponse().status == 503
        manager.close()
        threading.Event().wait(6)  # httpx closes what it has not used for 5 s: we must not be the first
        kept.request("GET", "/health")
        assert kept.sock is sock, "it had to connect again"
        answer = kept.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (200, "close")
        kept.close()


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
