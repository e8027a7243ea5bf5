"""How far a start is, from lines that engines really write."""

from __future__ import annotations

import pytest

from supervisor.ports import Learned
from supervisor.progress import LONGEST_SHARE, Course, Mark, Stage, mark_of, stall_limit

S = Stage
LINES = [
    ("Loading safetensors checkpoint shards:  43% Completed | 3/7 [00:02<00:03]", Mark(S.WEIGHTS, 0.43)),
    ("(EngineCore pid=8) INFO 11-20 [model_runner.py:2] Starting to load model Q/x...", Mark(S.WEIGHTS)),
    ("Capturing CUDA graphs (decode, FULL):  91%|#########1| 61/67 [00:12<00:01]", Mark(S.CAPTURE, 0.91)),
    ("INFO 11-20 [backends.py:541] Dynamo bytecode transform time: 4.30 s", Mark(S.COMPILE)),
    ("INFO 11-20 [kv_cache_utils.py:864] GPU KV cache size: 216,144 tokens", Mark(S.CACHE)),
    ("2026-11-20 18:45:31,204 - INFO - Fetching 9 files:  33%|###3  | 3/9", Mark(S.FETCH, 0.33)),
    ("INFO:     Started server process [4123]", Mark(S.SERVE)),
    ("load_tensors: offloaded 33/33 layers to GPU", Mark(S.WEIGHTS, 1.0)),
    ("Loading pipeline components... 3/6", Mark(S.WEIGHTS, 0.5)),
    ("INFO 11-20 [core.py:61] Initializing a V1 LLM engine (v0.32.0) with config: x", Mark(S.ENGINE)),
    ("UserWarning: nothing of interest", None),
]  # fmt: skip


@pytest.mark.parametrize(("line", "mark"), LINES)
def test_a_line_tells_of_a_stage(line: str, mark: Mark | None) -> None:
    assert mark_of(line) == mark


LEARNED = Learned(
    load_seconds=100.0, stages={"engine": 10.0, "weights": 20.0, "capture": 80.0, "serve": 95.0}
)


def at(elapsed: float, *seen: tuple[str, float]) -> tuple[float, float]:
    """(done, left) after lines seen at their times."""
    course = Course()
    lines: list[str] = []
    for line, when in seen:
        lines.append(line)
        course.see(lines, when)
    found = course.estimate(elapsed, LEARNED)
    assert found is not None
    assert found.left is not None
    return round(found.done, 3), round(found.left, 1)


def test_before_the_first_milestone_progress_waits_for_it() -> None:
    assert at(5.0) == (0.05, 95.0)
    assert at(60.0)[0] == 0.1


def test_a_percentage_places_the_start_within_its_stage() -> None:
    assert at(20.0, ("Loading weights", 20.0)) == (0.2, 80.0)
    assert at(50.0, ("Loading weights 50%", 20.0)) == (0.5, 50.0)
    assert at(30.0, ("Loading weights 50%", 20.0)) == (0.5, 30.0)  # faster than the last time


def test_a_slower_start_takes_longer_to_the_end_too() -> None:
    assert at(80.0, ("Starting to load model x", 40.0)) == (0.6, 53.3)


def test_a_stage_that_takes_longer_than_before_does_not_run_into_the_next() -> None:
    assert at(300.0, ("Loading weights", 20.0))[0] == 0.8
    assert at(99.5, ("Uvicorn running on x", 95.0))[0] == LONGEST_SHARE


def test_before_anything_was_learned_the_engines_own_percentage_is_shown() -> None:
    course = Course()
    assert course.estimate(3.0, Learned()) is None
    course.see(["Loading safetensors checkpoint shards:  43% Completed"], 2.0)
    found = course.estimate(3.0, Learned())
    assert found is not None
    assert (found.done, found.left) == (0.43, None)


def test_a_silent_engine_is_judged_by_time_alone() -> None:
    found = Course().estimate(50.0, Learned(load_seconds=40.0))
    assert found is not None
    assert (found.done, found.left) == (LONGEST_SHARE, 0.0)


def test_the_first_sight_of_a_stage_is_what_is_learned() -> None:
    course = Course()
    course.see(["Loading weights 10%"], 3.0)
    course.see(["Loading weights 10%", "Loading weights 20%"], 4.0)
    assert course.reached == {"weights": 3.0}


def test_a_model_that_loads_fast_is_not_waited_for_as_long() -> None:
    assert stall_limit(180.0, None) == 180.0
    assert stall_limit(180.0, 2.0) == 30.0
    assert stall_limit(180.0, 40.0) == 120.0
    assert stall_limit(180.0, 900.0) == 180.0
    assert stall_limit(5.0, 2.0) == 5.0
