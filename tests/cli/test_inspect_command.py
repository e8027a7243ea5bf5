"""`modelyard models inspect`: names, folders and servers, without a daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from tests.support.checkpoints import write_checkpoint
from tests.support.daemon_stub import DaemonStub, Reply

KEYS = (
    "provider",
    "family",
    "capabilities",
    "parameters",
    "active_parameters",
    "quantization",
    "context_length",
)
VLLM = {"id": "q", "object": "model", "owned_by": "vllm", "root": "Qwen/Qwen3-8B", "max_model_len": 4096}
CHAT_ROUTES: dict[str, Any] = {"paths": {"/v1/chat/completions": {}, "/tokenize": {}}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inspected(subject: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["models", "inspect", subject, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


def test_a_name_gives_facts_with_their_source(capsys: pytest.CaptureFixture[str]) -> None:
    answer = inspected("google/gemma-4-26B-A4B-it", capsys)
    assert {key: answer[key]["value"] for key in KEYS} == {
        "provider": "Google",
        "family": "gemma-4",
        "capabilities": ["generate", "reasoning", "tool_use", "video", "vision"],
        "parameters": 26_000_000_000,
        "active_parameters": 4_000_000_000,
        "quantization": None,
        "context_length": 262144,
    }
    assert answer["parameters"]["source"] == "name"
    assert answer["quantization"] == {"value": None, "source": "unknown", "rank": None}
    assert answer["present"] is False


def test_a_folder_gives_what_its_files_say(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = inspected(str(write_checkpoint(home / "model")), capsys)
    assert answer["context_length"] == {
        "value": 2048, "source": "config.json max_position_embeddings", "rank": "files",
    }  # fmt: skip
    assert answer["engines"]["mlx-lm"] is None


def test_a_broken_folder_gives_its_problem(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "model").mkdir()
    (home / "model" / "config.json").write_bytes(b"\xff" * 2**20)
    assert inspected("./model", capsys)["problem"] == "config.json is not valid JSON"


def test_a_server_is_asked_what_it_serves(capsys: pytest.CaptureFixture[str]) -> None:
    answers = {
        "GET /v1/models": Reply({"object": "list", "data": [VLLM]}),
        "GET /openapi.json": Reply(CHAT_ROUTES),
    }
    with DaemonStub(answers) as stub:
        answer = inspected(f"{stub.url}/v1", capsys)
    assert answer["context_length"] == {
        "value": 4096, "source": "/v1/models", "rank": "engine",
        "others": [{"value": 40960, "source": "name (its family)"}],
    }  # fmt: skip
    assert answer["capabilities"]["rank"] == "engine"
    assert answer["capabilities"]["value"] == ["generate", "reasoning", "tool_use"]
    assert [model["subject"] for model in answer["models"]] == ["q"]


def test_a_server_that_is_not_there_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    with DaemonStub() as stub:
        url = stub.url
    assert run(["models", "inspect", url]) == 69
    assert "does not answer" in capsys.readouterr().err


def test_for_people_what_nobody_knows_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "inspect", "acme/thing-7b-chat"]) == 0
    out = capsys.readouterr().out
    assert "parameters      7 B  name" in out
    assert "context length  8,192  default" in out
    assert "not known       provider, family" in out


def test_a_broken_configuration_is_no_hindrance(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "modelyard.yaml").write_text("modles: {}\n")
    assert run(["models", "inspect", "Qwen/Qwen3-8B"]) == 0
    assert "the configuration is not used" in capsys.readouterr().err
