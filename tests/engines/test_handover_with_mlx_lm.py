"""`modelyard restart` with real mlx-lm children: streams go on, and the engines stay the same."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import openai
import psutil

from config.vocabulary import EngineName
from tests.support.eventually import eventually
from tests.support.real_engines import NO_END, QUESTIONS, YARD, YARD_SOURCE, ask, daemon_in, real, sdk
from tests.support.running_daemon import ROOT, RunningDaemon

pytestmark = real(EngineName.MLX_LM)

HAND_OVERS: Final = max(1, int(os.environ.get("MODELYARD_ROUNDS", "0")) // 20)
STREAMS: Final = 4
TOKENS: Final = 1900
"""Of 2048 that the model has room for: some seconds on a CPU, several times what a hand-over takes."""
FOREMAN: Final = "yard-foreman"
MODELS: Final = {
    YARD: {"source": YARD_SOURCE},
    FOREMAN: {"source": str(ROOT / "demo" / "models" / FOREMAN)},
}


class Stream:
    """One answer that does not end before its last token, read in a thread of its own."""

    def __init__(self, client: openai.OpenAI) -> None:
        self.pieces = 0
        self.end: str | None = None
        self._client = client

    def read(self) -> None:
        """To its end."""
        stream = self._client.chat.completions.create(
            model=YARD,
            messages=[{"role": "user", "content": "What is modelyard?"}],
            max_tokens=TOKENS,
            stream=True,
            temperature=0,
            extra_body={"logit_bias": NO_END},
        )
        for chunk in stream:
            self.pieces += 1
            if chunk.choices:
                self.end = chunk.choices[0].finish_reason or self.end


def asked_again_and_again(client: openai.OpenAI, until: threading.Event) -> int:
    """How many questions were answered, each word for word."""
    served = 0
    question, expected = next(iter(QUESTIONS.items()))
    while not until.is_set():
        assert ask(client, YARD, question).strip() == expected.strip()
        served += 1
    return served


def test_hand_overs_cut_nothing_and_keep_the_engines(tmp_path: Path) -> None:
    served = 0
    with daemon_in(tmp_path, MODELS) as daemon, ThreadPoolExecutor(STREAMS + 1) as pool:
        for model in MODELS:
            assert daemon.chat(model, max_tokens=1).status_code == 200
        engines = pids(daemon)
        for _ in range(HAND_OVERS):
            with sdk(daemon) as client:
                enough = threading.Event()
                streams = [Stream(client) for _ in range(STREAMS)]
                reading = [pool.submit(stream.read) for stream in streams]
                asking = pool.submit(asked_again_and_again, client, enough)
                eventually(lambda: all(s.pieces > 1 for s in streams), within=60, what="all streams")  # noqa: B023
                answer = httpx.post(f"{daemon.url}/api/restart", timeout=120)
                assert answer.status_code == 200, answer.text
                going = [stream.pieces for stream in streams]
                assert not any(done.done() for done in reading), (
                    "a stream ended before its hand-over: no proof"
                )
                assert daemon.status()["pid"] == answer.json()["pid"]
                assert pids(daemon) == engines
                enough.set()
                served += asking.result(120)
                for done in reading:
                    done.result(240)
                assert [stream.end for stream in streams] == ["length"] * STREAMS
                assert all(s.pieces > before for s, before in zip(streams, going, strict=True))
        assert pids(daemon) == engines
        assert all(psutil.pid_exists(pid) for pid in engines.values())
    print(
        f"{HAND_OVERS} hand-overs with mlx-lm: {served} questions answered right, {HAND_OVERS * STREAMS} "
        "streams outlasted theirs, 0 cut, the same engines"
    )


def pids(daemon: RunningDaemon) -> dict[str, int]:
    """The engines' processes."""
    return {model: daemon.model(model)["pid"] for model in MODELS}
