"""Ring 5: the real mlx-lm on the CPU with the demo models, asked through the OpenAI SDK.

`modelyard engine install mlx-lm` provides the engine; without it these are skipped, except in CI.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import yaml

from config.places import engine_folder, engines_dir
from config.vocabulary import EngineName
from tests.support.eventually import eventually
from tests.support.real_engines import NO_END, ask, load, said_by_engine, sdk
from tests.support.running_daemon import ROOT, RunningDaemon

ENGINES = engines_dir(os.environ)
INSTALLED = (engine_folder(ENGINES, EngineName.MLX_LM) / "modelyard-engine.json").exists()

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not INSTALLED and not os.environ.get("CI"), reason="mlx-lm is not installed: make engine"
    ),
]

YARD, FOREMAN = "yard-demo", "yard-foreman"
README: dict[str, dict[str, str]] = yaml.safe_load((ROOT / "demo" / "questions.yaml").read_text())["readme"]
QUESTIONS = {
    name: {question: answers[name] for question, answers in README.items() if name in answers}
    for name in (YARD, FOREMAN)
}


def settings(**over: Any) -> dict[str, Any]:
    models = {name: {"source": str(ROOT / "demo" / "models" / name)} for name in (YARD, FOREMAN)}
    return {"models": models, **over}


def daemon_in(folder: Path, **over: Any) -> RunningDaemon:
    return RunningDaemon(folder, settings(**over), env={"MODELYARD_ENGINES": str(ENGINES)})


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with daemon_in(tmp_path_factory.mktemp("daemon"), default_model=YARD) as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[openai.OpenAI]:
    with sdk(daemon) as found:
        yield found


def test_the_models_are_listed_with_what_they_can_do(client: openai.OpenAI) -> None:
    listed = {model.id: model.model_dump() for model in client.models.list()}
    assert set(listed) == {YARD, FOREMAN}
    assert listed[YARD]["capabilities"] == ["generate"]
    assert listed[YARD]["engine"] == "mlx-lm"
    assert listed[YARD]["context_length"] == 2048


@pytest.mark.parametrize("model", [YARD, FOREMAN])
def test_the_questions_of_the_readme_are_answered_right(client: openai.OpenAI, model: str) -> None:
    for question, expected in QUESTIONS[model].items():
        assert ask(client, model, question).strip() == expected.strip()


def test_a_stream_is_streamed_and_carries_usage(client: openai.OpenAI) -> None:
    question, expected = next(iter(QUESTIONS[YARD].items()))
    stream = client.chat.completions.create(
        model=YARD,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=120,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == expected.strip()
    assert len(chunks) > 5
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens > 5
    assert {chunk.model for chunk in chunks} == {YARD}


def test_completions_work(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=YARD, prompt="modelyard is", max_tokens=8)
    assert answer.choices[0].text
    assert answer.usage is not None


def test_an_unknown_model_is_a_404_that_names_the_nearest(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "yard-dmo", "hello")
    assert caught.value.code == "model_not_found"
    assert YARD in caught.value.message


def test_what_it_has_answered_is_a_fact(daemon: RunningDaemon) -> None:
    load(daemon, YARD)
    chats = said_by_engine(daemon, YARD, "capabilities")
    assert (chats["value"], chats["source"]) == (["generate"], "it answered /v1/chat/completions")


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20_000}}
ASKED = 200


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("embeddings", {"input": "hello"}),
        ("chat/completions", {"messages": [{"role": "user", "content": [PICTURE]}]}),
    ],
)
def test_what_it_cannot_do_is_refused_at_once_and_without_a_start(
    tmp_path: Path, path: str, content: dict[str, Any]
) -> None:
    with daemon_in(tmp_path) as daemon, httpx.Client(base_url=f"{daemon.url}/v1/", timeout=20) as client:
        for _ in range(ASKED):
            answer = client.post(path, json={"model": YARD, **content})
            assert answer.json()["error"]["code"] == "capability_missing", answer.text
        assert daemon.model(YARD)["starts"] == 0
    # The daemon's own figure, from a request's first byte to the answer's last: the client is not measured.
    lines = [line for line in daemon.log.splitlines() if '"event":"request_refused"' in line]
    took = [json.loads(line)["total_seconds"] for line in lines if f'"/v1/{path}"' in line]
    assert len(took) == ASKED
    print(f"/v1/{path}: {ASKED} refusals, median {statistics.median(took) * 1000:.1f} ms")
    assert statistics.median(took) < 0.005


def test_a_request_without_a_model_goes_to_the_default(daemon: RunningDaemon) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    answer = httpx.post(f"{daemon.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["model"] == YARD


def test_an_unnamed_case_is_resolved_and_echoed_as_it_was_asked(daemon: RunningDaemon) -> None:
    answer = daemon.chat("Yard-Demo", max_tokens=5)
    assert answer.status_code == 200
    assert answer.json()["model"] == "Yard-Demo"


def test_a_client_that_leaves_frees_the_instance(client: openai.OpenAI, daemon: RunningDaemon) -> None:
    stream = client.chat.completions.create(
        model=YARD,
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=1900,
        stream=True,
        extra_body={"logit_bias": NO_END},
    )
    next(iter(stream))
    assert daemon.model(YARD)["in_flight"] == 1
    stream.close()
    eventually(lambda: daemon.model(YARD)["in_flight"] == 0)
    assert ask(client, YARD, "What is modelyard?")


def test_a_killed_engine_is_replaced_for_a_request_without_a_byte(daemon: RunningDaemon) -> None:
    daemon.chat(YARD, max_tokens=1)
    victim = daemon.model(YARD)["pid"]
    # Frozen, it accepts the request and cannot answer it before it is killed.
    os.kill(victim, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(daemon.chat, YARD, "What is modelyard?", max_tokens=60)
        eventually(lambda: daemon.model(YARD)["in_flight"] == 1)
        os.kill(victim, signal.SIGKILL)
        answer = pending.result(60)
    assert answer.status_code == 200, answer.text
    assert daemon.model(YARD)["pid"] != victim


def test_a_stream_cut_by_a_kill_is_not_taken_for_a_whole_one(daemon: RunningDaemon) -> None:
    daemon.chat(YARD, max_tokens=1)
    victim = daemon.model(YARD)["pid"]
    with daemon.stream(YARD, "What is modelyard?", max_tokens=1900, logit_bias=NO_END) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if line.startswith("data: "))
        os.kill(victim, signal.SIGKILL)
        rest = [line for line in lines if line.startswith("data: ")]
    # mlx_lm.server's stream ends with its connection: cut, it looks like a clean end.
    assert "data: [DONE]" not in rest
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "answer_cut"
    assert daemon.chat(YARD, max_tokens=1).status_code == 200


def test_two_clients_alternate_under_a_budget_that_holds_one_model(tmp_path: Path) -> None:
    # Their own figures, so that what an earlier run has learned plays no part.
    models = {name: entry | {"memory": "600MiB"} for name, entry in settings()["models"].items()}
    budget = {"models": models, "memory": {"host": "1GiB"}, "admission": {"min_residency": "1s"}}
    with daemon_in(tmp_path, **budget) as daemon, sdk(daemon) as client:

        def talk(order: tuple[str, ...]) -> None:
            for model in order:
                question, expected = next(iter(QUESTIONS[model].items()))
                assert ask(client, model, question).strip() == expected.strip()

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            turns = [(YARD, FOREMAN) * 3, (FOREMAN, YARD) * 3]
            for done in [pool.submit(talk, turn) for turn in turns]:
                done.result(200)
        assert sum(model["state"] == "ready" for model in daemon.status()["models"]) <= 1


def test_an_idle_model_is_reaped_and_a_preloaded_one_is_there_before_anybody_asks(tmp_path: Path) -> None:
    models = settings()["models"]
    models[YARD] |= {"ttl": "2s"}
    models[FOREMAN] |= {"preload": True}
    with daemon_in(tmp_path, models=models) as daemon:
        eventually(lambda: daemon.model(FOREMAN)["state"] == "ready", within=60)
        daemon.chat(YARD, max_tokens=1)
        pid = daemon.model(YARD)["pid"]
        eventually(lambda: daemon.model(YARD)["state"] == "stopped", within=30)
        assert not psutil.pid_exists(pid)


def test_a_real_engine_survives_its_daemon_and_answers_the_next_one(tmp_path: Path) -> None:
    daemon = daemon_in(tmp_path, adopt_within="60s").start()
    daemon.chat(YARD, max_tokens=1)
    pid = daemon.model(YARD)["pid"]
    daemon.kill()
    with daemon_in(tmp_path, adopt_within="60s") as heir:
        assert heir.chat(YARD, max_tokens=1).status_code == 200
        assert heir.model(YARD)["pid"] == pid
        assert heir.model(YARD)["starts"] == 0
