"""Ring 5: the seed's API and our own clients, in their documented forms, with the real mlx-lm."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from config.vocabulary import EngineName
from modelyard import AsyncClient, Client
from tests.support.command_line import CommandLine
from tests.support.real_engines import QUESTIONS, YARD, YARD_SOURCE, daemon_in, real
from tests.support.running_daemon import RunningDaemon

pytestmark = [
    *real(EngineName.MLX_LM, timeout=240),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]

QUESTION, ANSWER = next(iter(QUESTIONS.items()))
ASKED: dict[str, Any] = {"temperature": 0, "max_tokens": 120}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One with the demo model, which is the default one because it is the only one."""
    with daemon_in(tmp_path_factory.mktemp("seed"), {YARD: {"source": YARD_SOURCE}}) as running:
        yield running


def curl(daemon: RunningDaemon, path: str, body: Any = None) -> str:
    """What curl prints for POST *body* to *path*, or for GET."""
    words = [] if body is None else ["-H", "content-type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(
        ["curl", "-sSN", "--max-time", "120", f"{daemon.url}/api/v1/{path}", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_load_generate_stream_chat_and_unload_by_curl(daemon: RunningDaemon) -> None:
    loaded = json.loads(curl(daemon, "inference/load", {"model": YARD}))
    assert (loaded["status"], loaded["model"], loaded["state"]) == ("loaded", YARD, "ready")
    status = json.loads(curl(daemon, "inference/status"))
    assert (status["status"], status["model"]) == ("ready", YARD)
    assert [one["model"] for one in status["loaded_models"]] == [YARD]

    asked = {"prompt": QUESTION, **ASKED}
    answer = json.loads(curl(daemon, "inference/generate", asked))
    assert (answer["text"].strip(), answer["finish_reason"]) == (ANSWER, "stop")
    lines = curl(daemon, "inference/generate", {**asked, "stream": True}).splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert all(set(event) == {"text", "finish_reason"} for event in events)
    assert "".join(event["text"] for event in events).strip() == ANSWER
    assert [event["finish_reason"] for event in events if event["finish_reason"]] == ["stop"]
    assert len(events) > 3

    messages = [{"role": "user", "content": QUESTION}]
    chat = json.loads(curl(daemon, "chat/completions", {"messages": messages, **ASKED}))
    assert chat["choices"][0]["message"]["content"].strip() == ANSWER

    assert json.loads(curl(daemon, "inference/unload", {}))["model"] == YARD
    assert json.loads(curl(daemon, "inference/status"))["status"] == "idle"


def test_the_openai_client_at_the_seeds_base_url(daemon: RunningDaemon) -> None:
    with openai.OpenAI(base_url=f"{daemon.url}/api/v1", api_key="none", timeout=120) as client:
        stream = client.chat.completions.create(
            model=YARD,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            max_tokens=120,
            stream=True,
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text.strip() == ANSWER


def test_our_client_loads_asks_streams_and_unloads(daemon: RunningDaemon) -> None:
    with Client(daemon.url, model=YARD) as yard:
        assert yard.load().state == "ready"
        answer = yard.chat(QUESTION, **ASKED)
        assert (answer.text.strip(), answer.finish_reason) == (ANSWER, "stop")
        assert yard.generate(QUESTION, **ASKED).text.strip() == ANSWER
        assert yard.generate("modelyard is", raw=True, max_tokens=8).text
        with yard.stream(QUESTION, **ASKED) as stream:
            assert "".join(str(piece) for piece in stream).strip() == ANSWER
        assert yard.unload().state == "stopped"


def test_our_asynchronous_client_too(daemon: RunningDaemon) -> None:
    async def talk() -> tuple[str, str]:
        async with AsyncClient(daemon.url, model=YARD) as yard:
            await yard.load()
            said = (await yard.chat(QUESTION, **ASKED)).text
            async with yard.stream(QUESTION, **ASKED) as stream:
                streamed = "".join([str(piece) async for piece in stream])
            await yard.unload()
            return said, streamed

    assert [text.strip() for text in asyncio.run(talk())] == [ANSWER, ANSWER]


def test_the_command_line_with_a_real_engine(
    daemon: RunningDaemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cli = CommandLine(tmp_path_factory.mktemp("home"), daemon)
    assert cli.json("load", YARD)["engine"] == "mlx-lm"
    found = cli.json("generate", YARD, QUESTION, "--temperature", "0", "--max-tokens", "120")
    assert (found["text"].strip(), found["finish_reason"]) == (ANSWER, "stop")
    assert found["usage"]["completion_tokens"] > 3
    assert " ".join(cli.lines("chat", YARD, "--once", QUESTION)).strip()
    (shown,) = cli.json("ps")
    assert shown["memory"]["measured_bytes"] > 0
    assert cli.json("logs", YARD)["lines"]
    assert cli.json("unload", YARD)["state"] == "stopped"
