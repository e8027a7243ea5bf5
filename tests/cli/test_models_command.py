"""`modelyard models` against a stand-in daemon."""

from __future__ import annotations

import json

import pytest

from cli.main import run
from tests.support.daemon_stub import DaemonStub, Reply

GOOD = {
    "id": "yard-demo",
    "object": "model",
    "state": "stopped",
    "engine": "mlx-lm",
    "capabilities": ["generate"],
    "context_length": 2048,
    "size_bytes": 5 * 2**20,
    "aliases": ["demo"],
    "problem": None,
}
BAD = {"id": "org/big", "engine": "vllm", "capabilities": ["generate"], "problem": "vllm is not installed"}
LISTING = {"object": "list", "data": [GOOD, BAD]}


def test_the_table_has_a_row_per_model_with_its_problem(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /v1/models": Reply(LISTING)}) as stub:
        assert run(["models", "--url", stub.url]) == 0
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["MODEL", "STATE", "ENGINE", "CAN", "CONTEXT", "SIZE", "PROBLEM"]
    assert first.split() == ["yard-demo", "stopped", "mlx-lm", "generate", "2,048", "5.0", "MiB"]
    assert second.split() == ["org/big", "-", "vllm", "generate", "-", "-", "vllm", "is", "not", "installed"]


def test_json_is_the_listing_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /v1/models": Reply(LISTING)}) as stub:
        assert run(["models", "--json", "--url", stub.url]) == 0
    assert json.loads(capsys.readouterr().out) == LISTING


@pytest.mark.parametrize("name", ["yard-demo", "demo"])
def test_one_model_is_found_by_id_and_alias(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /v1/models": Reply(LISTING)}) as stub:
        assert run(["models", name, "--json", "--url", stub.url]) == 0
    assert json.loads(capsys.readouterr().out) == GOOD


def test_one_model_for_people_is_a_line_per_known_value(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /v1/models": Reply(LISTING)}) as stub:
        run(["models", "yard-demo", "--url", stub.url])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["size_bytes"] == "5.0 MiB"
    assert lines["aliases"] == "demo"
    assert "problem" not in lines


def test_an_unknown_model_fails_and_names_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /v1/models": Reply(LISTING)}) as stub:
        assert run(["models", "DEMO-", "--url", stub.url]) == 1
        assert run(["models", "yard", "--url", stub.url]) == 1
    assert "near: yard-demo" in capsys.readouterr().err


def test_a_daemon_that_was_named_and_does_not_answer_is_not_replaced_by_a_guess() -> None:
    with DaemonStub() as stub:
        url = stub.url
    assert run(["models", "--url", url]) == 69
