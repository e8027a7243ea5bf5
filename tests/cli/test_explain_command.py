"""`modelyard explain` against a stand-in daemon."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.main import run
from tests.support.daemon_stub import DaemonStub, Reply

ANSWER: dict[str, Any] = {
    "request": "req/1",
    "model": "qwen",
    "asked": 1_700_000_000.0,
    "waited_seconds": 34.21,
    "outcome": "served",
    "steps": [
        {"at": 1_700_000_000.0, "kind": "asked", "text": "qwen is not running", "data": {}},
        {"at": 1_700_000_020.0, "kind": "evict", "text": "llama is stopped for qwen", "data": {"leases": 0}},
    ],
}


def test_it_is_told_in_the_order_it_happened(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("TZ", "UTC")
    with DaemonStub({"GET /api/explain/req%2F1": Reply(ANSWER)}) as stub:
        assert run(["explain", "req/1", "--url", stub.url]) == 0
    first, *steps = capsys.readouterr().out.splitlines()
    assert first.startswith("req/1 asked for qwen at ")
    assert first.endswith("; it waited 34.2 s and was served.")
    assert [line.split("  ", 2)[2] for line in steps] == ["qwen is not running", "llama is stopped for qwen"]


def test_json_is_the_daemons_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /api/explain/r": Reply(ANSWER)}) as stub:
        assert run(["explain", "r", "--json", "--url", stub.url]) == 0
    assert json.loads(capsys.readouterr().out) == ANSWER


def test_an_unknown_request_is_an_error_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = {"error": {"message": "no request 'r' has waited lately", "code": "no_explanation"}}
    with DaemonStub({"GET /api/explain/r": Reply(refusal, status=404)}) as stub:
        assert run(["explain", "r", "--url", stub.url]) == 1
    assert "no request 'r' has waited lately" in capsys.readouterr().err
