"""The same accident again and again: kills at every step, squatters, the deaf (`make test-rounds`: 100)."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from supervisor.ports import ExitReport
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted
from tests.support.trees import Yard, fake_spec, in_yard, is_alive, squatter, stats

ROUNDS: Final = int(os.environ.get("MODELYARD_ROUNDS", "3"))
pytestmark = [pytest.mark.process, pytest.mark.timeout(60 + 12 * ROUNDS)]

CLEAN_WITHIN: Final = 2.0
"""Seconds after the next daemon serves."""


def trees_of_ready(daemon: RunningDaemon) -> set[int]:
    """Shims and descendants of instances that are ready."""
    found: set[int] = set()
    for instance in daemon.status()["instances"]:
        if instance["state"] == "ready":
            shim = psutil.Process(instance["pid"]).parent()
            assert shim is not None
            found |= {shim.pid, *(child.pid for child in shim.children(recursive=True))}
    return found


def in_background(call: Callable[[], object]) -> None:
    """Whatever becomes of *call*: the daemon it asks is about to die."""

    def run() -> None:
        try:
            call()
        except httpx.HTTPError:
            return

    threading.Thread(target=run, daemon=True).start()


def ask(daemon: RunningDaemon, answers: list[httpx.Response]) -> None:
    """One answer of model `a`, put into *answers*."""
    answers.append(daemon.chat("a"))


def fresh_port(daemon: RunningDaemon, used: set[int]) -> int:
    """The port of model `a`, or 0 while it is none or one of *used*: a status may be a moment old."""
    port: int = daemon.model("a")["port"] or 0
    return 0 if port in used else port


def reach(daemon: RunningDaemon, step: str) -> None:
    """Bring an instance to *step* of its life."""
    if step == "spawning":
        in_background(lambda: daemon.chat("plain"))
        eventually(lambda: list((daemon.folder / "state" / "run").iterdir()), what="a shim's folder")
        return
    model = {"stopping": "deaf", "backoff": "bad"}.get(step, "plain")
    if step in ("starting", "backoff"):
        in_background(lambda: daemon.chat(model))
    elif step == "draining":
        daemon.chat(model, max_tokens=1)
        in_background(lambda: daemon.chat(model, stream=True))
        eventually(lambda: daemon.model(model)["in_flight"] == 1)
    else:
        daemon.chat(model, max_tokens=1)
    if step in ("draining", "stopping"):
        in_background(lambda: httpx.post(f"{daemon.url}/api/models/{model}/unload", timeout=30))
    eventually(lambda: daemon.model(model)["state"] in (step, "failed"), what=f"{model} to be {step}")


@pytest.mark.parametrize("step", ["spawning", "starting", "ready", "draining", "stopping", "backoff"])
def test_after_a_killed_daemon_only_trees_of_ready_instances_are_left(tmp_path: Path, step: str) -> None:
    knobs = ("--setsid-child", "--ready-after", "0.3", "--chunks", "400", "--chunk-interval", "0.05")
    models = {
        "plain": scripted(*knobs),
        "deaf": scripted("--setsid-child", "--ignore-term"),
        "bad": scripted("--setsid-child", "--exit-after", "0.1", "--ready-after", "9"),
    }
    chance = random.Random(step)
    with RunningDaemon(tmp_path, {"models": models, "start": {"stop_grace": "20s"}}) as daemon:
        for _ in range(max(1, ROUNDS // 6)):
            reach(daemon, step)
            threading.Event().wait(chance.random() * 0.1)  # anywhere in the step, not only at its beginning
            daemon.kill()
            daemon.start()
            served = time.monotonic()
            assert daemon.process is not None
            ours = {daemon.process.pid}
            eventually(
                lambda ours=ours: set(daemon.descendants()) - ours <= trees_of_ready(daemon),  # type: ignore[misc]
                within=CLEAN_WITHIN,
                what=f"only ready trees; {daemon.status()['instances']}",
            )
            assert time.monotonic() - served <= CLEAN_WITHIN
            for model in models:
                httpx.post(f"{daemon.url}/api/models/{model}/unload", json={"force": True}, timeout=30)
            daemon.chat("plain", max_tokens=1)
            httpx.post(f"{daemon.url}/api/models/plain/unload", timeout=30)


def test_after_a_killed_shim_its_tree_is_gone(folder: Path) -> None:
    async def story(yard: Yard) -> None:
        for _ in range(ROUNDS):
            recorder, child = await yard.launch(fake_spec("--setsid-child", "--fork-child", "--ignore-term"))
            port = child.record.port
            children: list[int] = []
            while not children:
                await yard.moment()
                children = (await yard.off_loop(partial(stats, port))).get("children", [])
            os.kill(child.record.shim_pid, signal.SIGKILL)
            report: ExitReport = await yard.ended(recorder)
            assert report.lost
            assert not any(is_alive(pid) for pid in (child.record.pid, *children))

    in_yard(folder, story)


def test_a_squatter_on_the_port_is_refused_and_the_start_retried(tmp_path: Path) -> None:
    late = scripted("--bind-after", "1.0", "--exit-on-taken-port")
    with RunningDaemon(tmp_path, {"models": {"a": late}}) as daemon:
        used: set[int] = set()
        for _ in range(ROUNDS):
            answers: list[httpx.Response] = []
            asker = threading.Thread(target=ask, args=(daemon, answers))
            asker.start()
            port = eventually(partial(fresh_port, daemon, used), what="a port")
            with squatter(port):
                asker.join(30)
                assert answers[0].status_code == 200, answers[0].text
                assert "served by a" in answers[0].json()["choices"][0]["message"]["content"]
                used.add(port)
                used.add(eventually(partial(fresh_port, daemon, used), what="another port"))
            httpx.post(f"{daemon.url}/api/models/a/unload", timeout=30)


def test_the_deaf_never_delay_another_models_request(tmp_path: Path) -> None:
    models = {"deaf": scripted("--ignore-term", "--setsid-child"), "b": scripted()}
    with RunningDaemon(tmp_path, {"models": models, "start": {"stop_grace": "1s"}}) as daemon:
        daemon.chat("b")
        waits = []
        for _ in range(ROUNDS):
            daemon.chat("deaf")
            in_background(lambda: httpx.post(f"{daemon.url}/api/models/deaf/unload", timeout=30))
            eventually(lambda: daemon.model("deaf")["state"] == "stopping")
            began = time.monotonic()
            assert daemon.chat("b").status_code == 200
            waits.append(time.monotonic() - began)
            assert daemon.model("deaf")["state"] == "stopping"
            eventually(lambda: daemon.model("deaf")["state"] == "stopped")
        print(f"longest wait of {len(waits)}: {max(waits):.3f} s")
        assert max(waits) < 0.9  # the grace alone is 1 s
