"""What people who wait are told, from lines that engines really write."""

from __future__ import annotations

import pytest

from supervisor.milestone import NOTE_CHARS, milestone, note, own_words

TOLD = [
    (
        "Loading safetensors checkpoint shards:  43% Completed | 3/7 [00:02<00:03,  1.21it/s]",
        "Loading safetensors checkpoint shards 43%",
    ),
    (
        "(EngineCore_DP0 pid=812) INFO 11-20 18:02:11 [model_runner.py:2602] Starting to load model Q/x...",
        "Starting to load model Q/x...",
    ),
    (
        "(VllmWorker rank=0 pid=9) Capturing CUDA graph shapes:  91%|#########1| 61/67 [00:12<00:01]",
        "Capturing CUDA graph shapes 91%",
    ),
    ("2026-11-20 18:45:31,204 - INFO - Fetching 9 files:  33%|###3  | 3/9", "Fetching 9 files 33%"),
    ("INFO:     Started server process [4123]", "Started server process [4123]"),
    ("loading weights 42%", "loading weights 42%"),
    ("Loading pipeline components... 3/7", "Loading pipeline components... 3/7"),
]


@pytest.mark.parametrize(("line", "told"), TOLD)
def test_a_line_becomes_a_milestone(line: str, told: str) -> None:
    assert milestone([line]) == told


def test_the_newest_milestone_wins_over_later_noise() -> None:
    assert milestone(["loading 10%", "loading 20%", "UserWarning: x is deprecated"]) == "loading 20%"


def test_our_own_probes_are_no_news() -> None:
    probe = 'INFO:     127.0.0.1:53122 - "GET /health HTTP/1.1" 503 Service Unavailable'
    assert own_words([probe, "loading"]) == ("loading",)
    assert milestone([probe]) == ""


def test_a_traceback_is_no_milestone() -> None:
    trace = [
        "Traceback (most recent call last):",
        '  File "x.py", line 3, in load_model',
        "    load(weights)",
    ]
    assert milestone(["loading 10%", *trace]) == "loading 10%"


def test_without_a_milestone_the_phase_is_told_and_everything_fits() -> None:
    assert note("waiting for /health", ["hello"]) == "waiting for /health"
    long = note("x", ["Loading " + "very " * 50 + "long 12%"])
    assert len(long) == NOTE_CHARS
    assert long.endswith("… 12%")
