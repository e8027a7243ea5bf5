"""`modelyard models` against a stand-in daemon."""

from __future__ import annotations

import json

import pytest

from cli.main import run
from cli.models import can, narrow_table, problem_lines, row, tokens
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
    assert first.split() == ["yard-demo", "stopped", "mlx-lm", "chat", "2k", "5.0", "MiB"]
    assert second.split() == ["org/big", "-", "vllm", "chat", "-", "-", "vllm", "is", "not", "installed"]


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
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    said = {line[1].strip(): line[-1].strip() for line in lines}
    assert said["size bytes"] == "5.0 MiB"
    assert said["aliases"] == "demo"
    assert "problem" not in said


def test_an_unknown_model_fails_and_names_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub({"GET /v1/models": Reply(LISTING)}) as stub:
        assert run(["models", "DEMO-", "--url", stub.url]) == 1
        assert run(["models", "yard", "--url", stub.url]) == 1
    assert "near: yard-demo" in capsys.readouterr().err


def test_a_daemon_that_was_named_and_does_not_answer_is_not_replaced_by_a_guess() -> None:
    with DaemonStub() as stub:
        url = stub.url
    assert run(["models", "--url", url]) == 69


# -- filters and the table -------------------------------------------------------------------------

SEES = {"id": "org/sees", "capabilities": ["generate", "vision"], "context_length": 131072}
EMBEDS = {"id": "org/embeds", "capabilities": ["embed"], "context_length": 512}
DARK: dict[str, object] = {"id": "org/dark", "capabilities": [], "context_length": None}


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], ["org/sees", "org/embeds", "org/dark"]),
        (["--capability", "vision"], ["org/sees"]),
        (["--capability", "chat", "--capability", "vision"], ["org/sees"]),
        (["--min-context", "32k"], ["org/sees"]),
        (["--min-context", "128K"], ["org/sees"]),
        (["--min-context", "512"], ["org/sees", "org/embeds"]),
        (["--capability", "embed", "--min-context", "1k"], []),
    ],
)
def test_models_are_chosen_by_what_they_can(
    options: list[str], ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    listing = {"object": "list", "data": [SEES, EMBEDS, DARK]}
    with DaemonStub({"GET /v1/models": Reply(listing)}) as stub:
        assert run(["models", "--json", *options, "--url", stub.url]) == 0
    assert [entry["id"] for entry in json.loads(capsys.readouterr().out)["data"]] == ids


@pytest.mark.parametrize(("option", "value"), [("--capability", "fly"), ("--min-context", "lots")])
def test_a_filter_that_means_nothing_is_wrong_usage(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", option, value]) == 2
    assert repr(value) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "text"),
    [(512, "512"), (2048, "2k"), (40960, "40k"), (131072, "128k"), (128000, "125k"), (1010000, "1010k"),
     (1048576, "1M"), (10485760, "10M"), (9999, "9999")],
)  # fmt: skip
def test_lengths_of_context_are_short(count: int, text: str) -> None:
    assert tokens(count) == text


def test_a_narrow_table_breaks_no_id_and_fits() -> None:
    long = "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit-DWQ"
    every = can(["audio", "code", "generate", "reasoning", "tool_use", "video", "vision"])
    rows = [
        (long, "ready", "mlx-lm", every, "256k", "17.2 GiB", ""),
        ("a/b", "stopped", "vllm", "embed", "8k", "-", ""),
    ]
    lines = narrow_table(rows, 80)
    assert max(map(len, lines)) <= 80
    assert long in lines
    assert lines[0].split() == ["MODEL", "STATE", "CAN", "CONTEXT", "SIZE"]
    assert lines[-1].split() == ["a/b", "stopped", "embed", "8k", "-"]
    assert every == "chat tools think code vision video audio"


def test_a_state_that_all_share_needs_no_column() -> None:
    rows = [(name, "stopped", "vllm", "chat", "8k", "-", "") for name in ("a", "b")]
    assert "STATE" not in narrow_table(rows, 80)[0]


MISSING = "{} needs the engine mlx-lm, which is not installed: run `modelyard engine install mlx-lm`"


def test_that_nothing_can_be_served_is_said_in_every_row_and_below() -> None:
    ids = [f"org/some-model-{number}-instruct" for number in range(40)]
    found = [
        {
            "id": name,
            "state": "unusable",
            "capabilities": ["generate", "tool_use"],
            "problem": MISSING.format(name),
        }
        for name in ids
    ]
    table = narrow_table([row(entry) for entry in found], 80)
    assert [line.split()[:2] for line in table] == [["MODEL", "STATE"], *([name, "unusable"] for name in ids)]
    assert max(map(len, table)) <= 80
    assert problem_lines(found, 80) == [
        "40 of 40 models cannot be served here:",
        "  40 models: needs the engine mlx-lm, which is not installed: run",
        "    `modelyard engine install mlx-lm`",
    ]


def test_a_few_that_cannot_be_served_are_named_by_reason() -> None:
    found: list[dict[str, object]] = [
        {"id": "good"},
        {"id": "a", "problem": MISSING.format("a")},
        {"id": "b", "problem": MISSING.format("b")},
        {"id": "c", "problem": {"message": "c: config.json is no JSON"}},
    ]
    assert problem_lines(found, 140) == [
        "3 of 4 models cannot be served here:",
        "  a, b: needs the engine mlx-lm, which is not installed: run `modelyard engine install mlx-lm`",
        "  c: config.json is no JSON",
    ]
    assert problem_lines([{"id": "good"}], 80) == []


# -- one model -------------------------------------------------------------------------------------

FACTS = {
    "context_length": {"value": 2048, "source": "config.json", "rank": "files",
                       "others": [{"value": 40960, "source": "name"}]},
    "license": {"value": None, "source": "unknown", "rank": None},
}  # fmt: skip


def test_a_model_is_shown_with_who_says_what(capsys: pytest.CaptureFixture[str]) -> None:
    whole = {**GOOD, "facts": FACTS}
    answers = {"GET /v1/models": Reply(LISTING), "GET /v1/models/yard-demo": Reply(whole)}
    with DaemonStub(answers) as stub:
        assert run(["models", "show", "yard-demo", "--url", stub.url]) == 0
    out = capsys.readouterr().out
    assert "2,048  config.json; name says 40,960" in out
    assert out.splitlines()[-1].split() == ["not", "known", "license"]
