"""A reload under load: who is not concerned does not notice, and what fails is put back."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

STREAMS: Final = 5
WORDS: Final = 60
BROKEN: Final = ("--exit-at-start", "--stderr-line", "error: unrecognized arguments: --frob")
SLOW: Final = ("--chunks", str(WORDS), "--chunk-interval", "0.1")


@dataclass
class Load:
    """Requests of every model one after the other, and streams of one; what became of them."""

    url: str
    failed: list[str] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=dict)
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, http: httpx.AsyncClient, model: str) -> None:
        """Until it is enough."""
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
        while not self.enough.is_set():
            answer = await http.post(f"{self.url}/v1/chat/completions", json=body)
            if answer.status_code != 200:
                self.failed.append(f"{model}: {answer.status_code} {answer.text[:200]}")
            self.served[model] = self.served.get(model, 0) + 1

    async def stream(self, http: httpx.AsyncClient, model: str, begun: asyncio.Semaphore) -> None:
        """One long answer, to its last word."""
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": True}
        words, last = 0, ""
        async with http.stream("POST", f"{self.url}/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    words, last = words + ('"content"' in line), line
                    if words == 1:
                        begun.release()
        if last != "data: [DONE]" or words != WORDS:
            self.failed.append(f"a stream of {model} was cut after {words} words: {last[:200]}")


@asynccontextmanager
async def under_load(daemon: RunningDaemon, *, streamed: str) -> AsyncIterator[Load]:
    """All three models are asked and *streamed* streams while the block runs, and to their end."""
    load = Load(daemon.url)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits) as http:
        begun = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(load.stream(http, streamed, begun)) for _ in range(STREAMS)]
            for model in "abc":
                group.create_task(load.ask(http, model))
            for _ in streams:
                await begun.acquire()
            yield load
            await asyncio.wait(streams)
            load.enough.set()


def write(daemon: RunningDaemon, **models: dict[str, object]) -> None:
    """Give *models* other entries in the daemon's file."""
    file = daemon.folder / "modelyard.yaml"
    written = yaml.safe_load(file.read_text())
    written["models"] |= models
    file.write_text(yaml.safe_dump(written))


def pids(daemon: RunningDaemon) -> dict[str, int]:
    """The engines' processes."""
    return {model["id"]: model["pid"] for model in daemon.status()["models"]}


async def applied(daemon: RunningDaemon) -> dict[str, Any]:
    """What `config apply` is answered."""
    async with httpx.AsyncClient(timeout=90) as http:
        answer = await http.post(f"{daemon.url}/api/config/apply")
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


MODELS: Final = {"a": scripted(*SLOW), "b": scripted(*SLOW), "c": scripted(*SLOW)}


def test_one_of_three_models_changes_under_load_and_the_others_do_not_notice(tmp_path: Path) -> None:
    async def story(daemon: RunningDaemon) -> tuple[Load, dict[str, Any]]:
        async with under_load(daemon, streamed="b") as load:
            write(daemon, a=scripted(*SLOW, "--chatter", "9"))
            answer = await applied(daemon)
        return load, answer

    with RunningDaemon(tmp_path, {"models": MODELS}) as daemon:
        for model in "abc":
            daemon.chat(model, max_tokens=1)
        before = pids(daemon)
        load, answer = asyncio.run(story(daemon))
        after = pids(daemon)
        assert load.failed == []
        assert [(one["model"], one["outcome"]) for one in answer["models"]] == [("a", "restarted")]
        assert (after["b"], after["c"]) == (before["b"], before["c"])
        assert after["a"] != before["a"]
        print(f"a reload of one of three under load: {load.served} served, {len(load.failed)} failed")


def test_the_streams_of_the_model_that_changes_come_to_their_end(tmp_path: Path) -> None:
    async def story(daemon: RunningDaemon) -> tuple[Load, dict[str, Any]]:
        async with under_load(daemon, streamed="a") as load:
            write(daemon, a=scripted(*SLOW, "--chatter", "9"))
            answer = await applied(daemon)
        return load, answer

    with RunningDaemon(tmp_path, {"models": MODELS}) as daemon:
        load, answer = asyncio.run(story(daemon))
        assert load.failed == []
        assert answer["complete"]


@pytest.mark.parametrize("broken", [BROKEN, ("--exit-after", "0.5", "--ready-after", "9")])
def test_a_broken_flag_is_rolled_back_and_no_request_fails(tmp_path: Path, broken: tuple[str, ...]) -> None:
    async def story(daemon: RunningDaemon) -> tuple[Load, dict[str, Any]]:
        async with under_load(daemon, streamed="b") as load:
            write(daemon, a=scripted(*SLOW, *broken))
            answer = await applied(daemon)
        return load, answer

    with RunningDaemon(tmp_path, {"models": MODELS}) as daemon:
        for model in "abc":
            daemon.chat(model, max_tokens=1)
        before = pids(daemon)
        load, answer = asyncio.run(story(daemon))
        after = pids(daemon)
        assert load.failed == []
        (one,) = answer["models"]
        assert (one["model"], one["outcome"], answer["complete"]) == ("a", "rolled_back", False)
        assert one["cause"]
        assert (after["b"], after["c"]) == (before["b"], before["c"])
        status = daemon.status()
        (back,) = status["configuration"]["rolled_back"]
        assert (back["model"], back["cause"]) == ("a", one["cause"])
        words = json.dumps(
            [event for event in status["recent_events"] if event["kind"] == "model_rolled_back"]
        )
        assert one["cause"].partition(":")[0] in words
        assert daemon.chat("a").status_code == 200
        print(f"a broken flag under load: {load.served} served, {len(load.failed)} failed; {one['cause']}")


def test_a_watched_file_is_applied_when_it_stands_still_and_a_wrong_one_changes_nothing(
    tmp_path: Path,
) -> None:
    with RunningDaemon(tmp_path, {"models": MODELS, "watch_config": True}) as daemon:
        daemon.chat("b", max_tokens=1)
        before = pids(daemon)
        write(daemon, d=scripted())
        eventually(lambda: "d" in pids(daemon), within=20, what="the file to be applied")
        file = daemon.folder / "modelyard.yaml"
        good = file.read_text()
        file.write_text(f"{good}ttl: soon\n")
        error = eventually(lambda: daemon.status()["configuration"]["error"], within=20, what="its error")
        assert f"{file}:{good.count(chr(10)) + 1}: ttl: " in error
        assert daemon.chat("d").status_code == 200
        file.write_text(good)
        eventually(lambda: not daemon.status()["configuration"]["error"], within=20, what="no error")
        assert pids(daemon)["b"] == before["b"]


def test_a_signal_that_comes_while_a_reload_runs_is_not_lost(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": MODELS}) as daemon:
        assert daemon.process is not None
        for number in range(5):
            write(daemon, **{f"new{number}": scripted()})
            daemon.process.send_signal(signal.SIGHUP)
            eventually(lambda name=f"new{number}": name in pids(daemon), what="the last one to be found")  # type: ignore[misc]
            for again in range(3):  # the last of these writes must be what is in force in the end
                write(daemon, b=scripted(ttl=f"{number * 10 + again + 1}s"))
                daemon.process.send_signal(signal.SIGHUP)
            wanted = number * 10 + 3
            began = time.monotonic()
            eventually(lambda w=wanted: daemon.model("b")["ttl_seconds"] == w, what="the last write")  # type: ignore[misc]
            assert time.monotonic() - began < 10
