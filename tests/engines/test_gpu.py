"""Ring 5: memory on a real NVIDIA GPU, as NVML tells it. Needs one, and torch and transformers as well.

The models are served by `tests/support/torch_server.py`, which holds as much of the device as it is told.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from supervisor.nvidia import Nvml
from tests.support.eventually import eventually
from tests.support.running_daemon import ROOT, RunningDaemon, events
from tests.support.yard import QUESTIONS, YARD, YARD_SOURCE

GIB = 2**30
CONTEXT_BYTES = 2 * GIB
"""What CUDA's own context and torch's libraries take beside the tensors, at the most."""

GPUS = Nvml.open().read()
BY_TORCH = all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))

pytestmark = [
    pytest.mark.large_engine,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not GPUS, reason="there is no NVIDIA GPU here"),
    pytest.mark.skipif(not BY_TORCH, reason="torch and transformers are not installed beside the tests"),
]


def on_gpu(name: str, gib: int, **over: Any) -> dict[str, Any]:
    server = str(ROOT / "tests" / "support" / "torch_server.py")
    words = ["--port", "{port}", "--model", YARD_SOURCE, "--name", name, "--ballast", str(gib * GIB)]
    return {
        "cmd": [sys.executable, server, *words],
        "memory": {"gpu0": f"{gib + 2}GiB", "host": "4GiB"},
        "identity": "models",
        "capabilities": ["generate"],
        **over,
    }


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    models = {
        "small": on_gpu("small", 4),
        "large": on_gpu("large", 8),
        "unknown": on_gpu("unknown", 4, memory=None),
    }
    with RunningDaemon(tmp_path, {"models": models, "memory": {"gpu": "14GiB"}}) as running:
        yield running


def gpu(daemon: RunningDaemon) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in daemon.status()["devices"] if one["id"] == "gpu0")
    return found


def answer_of(daemon: RunningDaemon, model: str) -> str:
    question, _ = next(iter(QUESTIONS.items()))
    response = daemon.chat(model, question, max_tokens=120)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"]).strip()


def test_the_device_is_listed_as_nvidias_own_tool_tells_it(daemon: RunningDaemon) -> None:
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    told = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    name, mib = told[0].rsplit(",", 1)
    shown = gpu(daemon)
    assert shown["name"] == name.strip()
    # nvidia-smi leaves out what the driver keeps for itself, NVML's first version does not.
    assert shown["total_bytes"] == pytest.approx(int(mib) * 2**20, rel=0.02)
    assert shown["budget_bytes"] == 14 * GIB


def test_a_model_answers_from_the_gpu_and_its_memory_there_is_measured_and_comes_back(
    daemon: RunningDaemon,
) -> None:
    before = gpu(daemon)["used_bytes"]
    assert answer_of(daemon, "small") == next(iter(QUESTIONS.values())).strip()
    eventually(lambda: daemon.model("small")["memory"]["measured_bytes"] is not None, within=15)
    used = gpu(daemon)["used_bytes"] - before
    assert 4 * GIB <= used <= 4 * GIB + CONTEXT_BYTES
    assert gpu(daemon)["reserved_bytes"] == 6 * GIB
    assert httpx.post(f"{daemon.url}/api/models/small/unload", timeout=60).status_code == 200
    assert gpu(daemon)["reserved_bytes"] == 0
    eventually(lambda: gpu(daemon)["used_bytes"] - before < GIB // 4, within=15)


def test_two_that_do_not_fit_together_take_turns_and_all_answers_are_right(daemon: RunningDaemon) -> None:
    """14 GiB for 6 and 10: who is asked takes the place of the other, and no more than that is used."""
    expected = next(iter(QUESTIONS.values())).strip()
    before, most = gpu(daemon)["used_bytes"], 0
    stop = threading.Event()

    def look() -> None:
        nonlocal most
        while not stop.wait(0.1):
            most = max(most, Nvml.open().read()[0].used_bytes - before)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for name in ("small", "large", "small", "large"):
            assert answer_of(daemon, name) == expected
    finally:
        stop.set()
        watcher.join()
    assert 8 * GIB <= most <= 14 * GIB
    states = {one: daemon.model(one)["state"] for one in ("small", "large")}
    assert states == {"small": "stopped", "large": "ready"}


def test_what_it_takes_on_the_gpu_is_learned_where_nobody_said_it(daemon: RunningDaemon) -> None:
    """NVML tells bytes per process where it knows the process; a container may hide that."""
    assert answer_of(daemon, "unknown")
    shared = Nvml.open().read()[0].by_pid
    pid = daemon.model("unknown")["pid"]
    if pid not in shared:
        pytest.skip(f"the driver does not tell which process holds what here: {shared}")
    eventually(lambda: daemon.model("unknown")["memory"]["measured_bytes"] > 4 * GIB, within=20)
    eventually(lambda: gpu(daemon)["reserved_bytes"] >= 4 * GIB, within=20)
    httpx.post(f"{daemon.url}/api/models/unknown/unload", timeout=60).raise_for_status()
    assert httpx.post(f"{daemon.url}/api/models/unknown/load", timeout=120).status_code == 200
    assert gpu(daemon)["reserved_bytes"] >= 4 * GIB, (
        "the second start reserves what the first was seen to take"
    )


def test_a_stream_from_the_gpu_and_a_killed_server(daemon: RunningDaemon) -> None:
    question, expected = next(iter(QUESTIONS.items()))
    with daemon.stream("small", question, max_tokens=120) as answer:
        found = events(answer)
    assert found[-1] == "[DONE]"
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in found[:-1])
    assert text.strip() == expected.strip()
    pid = daemon.model("small")["pid"]
    subprocess.run(["kill", "-9", str(pid)], check=True)
    assert answer_of(daemon, "small") == expected.strip()
    assert daemon.model("small")["pid"] != pid


def test_one_that_can_never_fit_is_refused_with_the_numbers(tmp_path: Path) -> None:
    models = {YARD: on_gpu(YARD, 14)}
    with RunningDaemon(tmp_path, {"models": models, "memory": {"gpu": "8GiB"}}) as running:
        response = running.chat(YARD)
    assert response.status_code == 507, response.text
    assert "16.0 GiB on gpu0, whose budget is 8.0 GiB" in response.json()["error"]["message"]
