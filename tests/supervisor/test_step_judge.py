"""What answers to a readiness step mean."""

from __future__ import annotations

import pytest

from registry.engine import Answers, HttpOk, Lists, PortOwned
from supervisor.listening import PortState
from supervisor.readiness import FATAL_FOR, NotReadyError, Signs, StepJudge, is_progress


def test_a_port_is_ours_or_not_yet_or_a_lasting_strangers() -> None:
    judge = StepJudge(PortOwned())
    stranger = PortState(owned=False, stranger="pid 9 (nginx)")
    assert not judge.port(8000, PortState(owned=False))
    for _ in range(FATAL_FOR - 1):
        assert not judge.port(8000, stranger)
    assert judge.port(8000, PortState(owned=True))
    for _ in range(FATAL_FOR - 1):
        judge.port(8000, stranger)
    with pytest.raises(NotReadyError, match=r"port 8000 belongs to pid 9 \(nginx\), not to us"):
        judge.port(8000, stranger)


def test_health_is_200_with_the_body_asked_for() -> None:
    judge = StepJudge(HttpOk("/health", json_key="model_loaded", json_value=True))
    assert not judge.answer(503, b"")
    assert not judge.answer(200, b"")
    assert not judge.answer(200, b'{"model_loaded": false}')
    assert not judge.answer(200, b"[1]")
    assert judge.answer(200, b'{"status": "healthy", "model_loaded": true}')
    assert StepJudge(HttpOk("/health")).answer(200, b"")


def test_a_fatal_status_must_last() -> None:
    judge = StepJudge(HttpOk("/health", fatal_statuses=(503,)))
    judge.answer(503, b"")
    judge.no_answer()
    for _ in range(FATAL_FOR - 1):
        judge.answer(503, b'{"status": "unavailable"}')
    with pytest.raises(NotReadyError, match="GET /health says it failed: status 503"):
        judge.answer(503, b'{"status": "unavailable"}')


def test_listing_is_by_exact_name_and_an_empty_body_is_not_yet() -> None:
    judge = StepJudge(Lists("qwen"))
    assert not judge.answer(200, b"")
    assert not judge.answer(500, b'{"data": [{"id": "qwen"}]}')
    assert not judge.answer(200, b'{"data": [{"id": "qwen-2"}, 7]}')
    assert "qwen-2" in judge.seen
    assert judge.answer(200, b'{"object": "list", "data": [{"id": "qwen"}]}')


def test_a_first_answer_is_waited_for_refused_or_given() -> None:
    assert StepJudge(Answers("/v1/x", b"{}")).answer(200, b"{}")
    judge = StepJudge(Answers("/v1/x", b"{}"))
    for _ in range(20):
        assert not judge.answer(503, b"loading")
    with pytest.raises(NotReadyError, match="generation thread died"):
        judge.answer(404, b'{"error": "generation thread died"}')
    with pytest.raises(NotReadyError, match="status 401"):
        StepJudge(Answers("/v1/x", b"{}")).answer(401, b"")


def test_server_errors_are_forgiven_a_few_times() -> None:
    judge = StepJudge(Answers("/v1/x", b"{}"))
    judge.answer(500, b"")
    judge.answer(500, b"")
    with pytest.raises(NotReadyError, match="failed 3 times"):
        judge.answer(500, b"boom")


@pytest.mark.parametrize(
    ("after", "alive"),
    [
        (Signs(1.0, ("a",), 5.0, 1000), False),
        (Signs(1.0, ("a",), 5.01, 1000 + 20_000), False),  # it answers our polls
        (Signs(1.0, ("a", "b"), 5.0, 1000), True),
        (Signs(1.0, ("a",), 5.2, 1000), True),
        (Signs(1.0, ("a",), 5.0, 10**7), True),
        (Signs(1.0, ("a",), 3.0, 1000), True),  # one of its processes ended
    ],
)
def test_signs_of_life(after: Signs, alive: bool) -> None:
    assert is_progress(Signs(0.0, ("a",), 5.0, 1000), after) is alive
