"""Ring 5: two vLLM instances and an mlx-lm take turns in memory that holds one vLLM, under alternating load.

`MODELYARD_SOAK_SECONDS` says for how long; two minutes without it, and until every model has come back.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import psutil

from config.vocabulary import EngineName
from tests.support.real_engines import QUESTIONS, YARD, YARD_SOURCE, ask, cosine, daemon_in, minilm, real, sdk
from tests.support.real_engines import shared_memory as left_in_shared_memory

SECONDS = float(os.environ.get("MODELYARD_SOAK_SECONDS") or 120)
BURST = 8
"""Requests of a client to one model before it goes on to the next."""
EVERY = 0.5
"""Seconds between two looks at the daemon's memory."""

pytestmark = [*real(EngineName.VLLM, timeout=round(SECONDS) + 1800), *real(EngineName.MLX_LM)[2:]]

CHAT, EMBEDDER, BESIDE = "chat-by-vllm", "vectors-by-vllm", YARD
MODELS: dict[str, dict[str, Any]] = {
    CHAT: {
        "source": YARD_SOURCE, "engine": "vllm", "dtype": "bfloat16", "max_model_len": 1024, "memory": "3GiB",
    },
    EMBEDDER: {"source": "", "engine": "vllm", "memory": "3GiB"},
    BESIDE: {"source": YARD_SOURCE, "engine": "mlx-lm", "memory": "1GiB"},
}  # fmt: skip
BUDGET = {"memory": {"host": "5GiB"}, "admission": {"min_residency": "5s"}}


def test_answers_are_right_memory_is_flat_and_nothing_is_left(tmp_path: Path) -> None:
    shared = left_in_shared_memory()
    models = {**MODELS, EMBEDDER: {**MODELS[EMBEDDER], "source": str(minilm())}}
    with daemon_in(tmp_path, models, **BUDGET) as daemon, sdk(daemon) as client:
        assert daemon.process is not None
        end = time.monotonic() + SECONDS
        with sampled(daemon.process.pid) as sizes, concurrent.futures.ThreadPoolExecutor(3) as pool:
            orders = [(CHAT, EMBEDDER, BESIDE), (EMBEDDER, BESIDE, CHAT), (BESIDE, CHAT, EMBEDDER)]
            done = [pool.submit(talk, client.with_options(timeout=900), order, end) for order in orders]
            answers = sum((one.result() for one in done), Counter[str]())
        starts = {name: daemon.model(name)["starts"] for name in models}
        crashes = {name: daemon.model(name)["crashes"] for name in models}
    third = len(sizes) // 3
    first, last = statistics.fmean(sizes[:third]), statistics.fmean(sizes[-third:])
    print(
        f"{SECONDS:.0f} s: right answers {dict(answers)}, starts {starts}, daemon's RSS in the first third "
        f"{first / 2**20:.1f} MiB, in the last {last / 2**20:.1f} MiB"
    )
    assert set(answers) == set(models)
    assert not any(crashes.values())
    assert starts[CHAT] + starts[EMBEDDER] > 2, "nobody had to go and come back"
    assert last < 1.1 * first
    assert left_in_shared_memory() <= shared


def talk(client: openai.OpenAI, order: Sequence[str], end: float) -> Counter[str]:
    """Ask each model in turn until *end*, and twice at least; how often each was right, which is always."""
    right: Counter[str] = Counter()
    questions = itertools.cycle(QUESTIONS.items())
    for turn, name in enumerate(itertools.cycle(order)):
        for _ in range(BURST):
            if time.monotonic() > end and turn >= 2 * len(order):
                return right
            if name == EMBEDDER:
                near_is_near(client)
            else:
                question, expected = next(questions)
                assert ask(client, name, question).strip() == expected.strip()
            right[name] += 1
    raise AssertionError("a cycle has no end")


def near_is_near(client: openai.OpenAI) -> None:
    """Meanings that are alike have vectors that are."""
    texts = ["a dog barks", "a puppy yelps", "corporate tax law"]
    near, other, far = (row.embedding for row in client.embeddings.create(model=EMBEDDER, input=texts).data)
    assert cosine(near, other) > cosine(near, far) + 0.2


@contextmanager
def sampled(pid: int) -> Iterator[list[int]]:
    """Resident bytes of a process, looked at all the time; the list is complete when the block has ended."""
    process, sizes, enough = psutil.Process(pid), list[int](), threading.Event()

    def look() -> None:
        while not enough.wait(EVERY):
            sizes.append(process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        enough.set()
        thread.join()
