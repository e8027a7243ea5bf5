"""The same accident again and again: kills at every step, squatters, the deaf (`make test-rounds`: 100)."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from supervisor.ports import ExitReport
from tests.support.eventually import crowded, eventually
from tests.support.running_daemon import RunningDaemon, scripted
from tests.support.trees import Yard, fake_spec, in_yard, is_alive, squatter, stats

ROUNDS: Final = int(os.environ.get("MODELYARD_ROUNDS", "3"))
pytestmark = [pytest.mark.process, pytest.mark.timeout(60 + 12 * ROUNDS)]

CLEAN_WITHIN: Final = 2.0
"""Seconds after the next daemon serves."""

ENDLESS: Final = ("--setsid-child", "--chunks", "100000", "--chunk-interval", "0.05")


def trees_of_ready(daemon: RunningDaemon) -> set[int]:
    """Shims and descendants of instances that are ready."""
    found: set[int] = set()
    for instance in daemon.status()["instances"]:
        if instance["state"] == "ready":
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since the status was taken
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


def unload(daemon: RunningDaemon, model: str, *, force: bool = False) -> httpx.Response:
    """Stop it, and answer when it has."""
    return httpx.post(f"{daemon.url}/api/models/{model}/unload?force={int(force)}", timeout=60)


def port_after(daemon: RunningDaemon, incarnation: int) -> int:
    """The port of model `a` once it has one and is a later incarnation; until then 0."""
    model = daemon.model("a")
    port: int = model["port"] or 0
    return port if model["incarnation"] > incarnation else 0


# -- a daemon that is killed while an instance is at each step of its life ---------------------------

STEPS: Final = {
    "binding": ("starting", "its engine has not opened its port"),
    "loading": ("starting", "its engine answers 503"),
    "ready": ("ready", "and at work"),
    "draining": ("draining", "a stream goes on"),
    "stopping": ("stopping", "its engine ignores TERM"),
    "backoff": ("backoff", "between two tries"),
    "failed": ("failed", "given up"),
}
"""Model to the state it is held in. One more, `spawning`, is caught on the way, at any moment of it."""


def at_each_step(gate: Path) -> dict[str, dict[str, object]]:
    """A model for each step. What starts goes on when *gate* is there."""
    return {
        "spawning": scripted("--setsid-child"),
        "binding": scripted("--setsid-child", "--bind-when", str(gate)),
        "loading": scripted("--setsid-child", "--ready-when", str(gate)),
        "ready": scripted(*ENDLESS),
        "draining": scripted(*ENDLESS),
        "stopping": scripted("--setsid-child", "--ignore-term"),
        "backoff": scripted("--setsid-child", "--exit-after", "0.1", "--ready-after", "9"),
        "failed": scripted("--setsid-child", "--exit-at-start"),
    }


def reach_each_step(daemon: RunningDaemon) -> None:
    """Bring one instance to each step, all at once."""
    with ThreadPoolExecutor(8) as pool:
        pool.submit(daemon.chat, "backoff")
        for done in [pool.submit(daemon.chat, model, max_tokens=1) for model in SERVING]:
            assert done.result().status_code == 200
    for model in ("ready", "draining"):
        in_background(partial(daemon.chat, model, stream=True))
    for model in ("binding", "loading"):
        in_background(partial(daemon.chat, model))
    eventually(lambda: all(daemon.model(model)["in_flight"] for model in ("ready", "draining")))
    for model in ("draining", "stopping"):
        in_background(partial(unload, daemon, model))
    crash(daemon, "failed")
    eventually(lambda: is_at_each_step(daemon), within=30, what=f"each step; {states(daemon)}")


SERVING: Final = ("ready", "draining", "stopping")
CRASHES: Final = 3
"""After so many it is given up; far more than what `backoff` has in a round."""


def crash(daemon: RunningDaemon, model: str) -> None:
    """Have it crash until it is given up: each load tries again at once."""
    for _ in range(CRASHES):
        if daemon.model(model)["state"] != "failed":
            httpx.post(f"{daemon.url}/api/models/{model}/load", timeout=60)


def states(daemon: RunningDaemon) -> dict[str, str]:
    """Of every model."""
    return {model["id"]: model["state"] for model in daemon.status()["models"]}


def is_at_each_step(daemon: RunningDaemon) -> bool:
    """Each model is where its name says; what starts has its process."""
    found = daemon.status()["models"]
    now = {model["id"]: model["state"] for model in found}
    born = all(model["pid"] for model in found if model["id"] in ("binding", "loading"))
    return born and all(now[model] == state for model, (state, _) in STEPS.items())


def test_after_a_killed_daemon_only_trees_of_ready_instances_are_left(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    settings = {
        "models": at_each_step(gate),
        "start": {"stop_grace": "30s", "crash_limit": CRASHES, "backoff_first": "60s"},
        "admission": {"max_parallel_starts": 8},
    }
    chance, longest = random.Random(1), 0.0
    with RunningDaemon(tmp_path, settings) as daemon:
        for _ in range(ROUNDS):
            reach_each_step(daemon)
            in_background(partial(daemon.chat, "spawning"))
            threading.Event().wait(chance.random() * 0.3)  # anywhere on the way
            assert is_at_each_step(daemon)
            daemon.kill()
            gate.touch()
            daemon.start()
            served = time.monotonic()
            assert daemon.process is not None
            ours = {daemon.process.pid}
            eventually(
                lambda ours=ours: set(daemon.descendants()) - ours <= trees_of_ready(daemon),  # type: ignore[misc]
                within=CLEAN_WITHIN * crowded(),
                what=f"only ready trees; {states(daemon)}",
            )
            longest = max(longest, time.monotonic() - served)
            gate.unlink()
            deaf = daemon.model("stopping")["pid"]
            if deaf is not None:  # or the next round would wait for its grace
                os.kill(deaf, signal.SIGKILL)
            with ThreadPoolExecutor(len(STEPS) + 1) as pool:
                list(pool.map(partial(unload, daemon, force=True), at_each_step(gate)))
    steps = len(STEPS) + 1
    print(f"{ROUNDS} kills with an instance at each of {steps} steps; clean after {longest:.2f} s at most")


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
    print(f"{ROUNDS} killed shims, each of their trees gone")


def test_a_squatter_on_the_port_is_refused_and_the_start_retried(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    late = scripted("--bind-when", str(gate), "--exit-on-taken-port")
    with RunningDaemon(tmp_path, {"models": {"a": late}}) as daemon:
        for _ in range(ROUNDS):
            before = daemon.model("a")["incarnation"]
            answers: list[httpx.Response] = []
            asker = threading.Thread(target=ask, args=(daemon, answers))
            asker.start()
            port = eventually(partial(port_after, daemon, before), what="a port")
            with squatter(port):
                gate.touch()
                asker.join(30)
                assert answers[0].status_code == 200, answers[0].text
                assert "served by a" in answers[0].json()["choices"][0]["message"]["content"]
                moved = daemon.model("a")
                assert moved["incarnation"] > before + 1
                assert moved["port"] != port
            gate.unlink()
            unload(daemon, "a")
        assert daemon.log.count("port_taken") >= ROUNDS
    print(f"{ROUNDS} squatters, none believed, each start retried and served")


def test_the_deaf_never_delay_another_models_request(tmp_path: Path) -> None:
    models = {"deaf": scripted("--ignore-term", "--setsid-child"), "b": scripted()}
    with RunningDaemon(tmp_path, {"models": models, "start": {"stop_grace": "60s"}}) as daemon:
        daemon.chat("b")
        waits = []
        for _ in range(ROUNDS):
            daemon.chat("deaf")
            in_background(partial(unload, daemon, "deaf"))
            eventually(lambda: daemon.model("deaf")["state"] == "stopping")
            began = time.monotonic()
            assert daemon.chat("b").status_code == 200
            waits.append(time.monotonic() - began)
            assert daemon.model("deaf")["state"] == "stopping"
            os.kill(daemon.model("deaf")["pid"], signal.SIGKILL)  # its grace is not ours to wait for
            eventually(lambda: daemon.model("deaf")["state"] == "stopped")
        print(f"{len(waits)} requests beside a child that ignores TERM, longest wait {max(waits):.3f} s")
        assert max(waits) < crowded()  # of a grace of 60 s
