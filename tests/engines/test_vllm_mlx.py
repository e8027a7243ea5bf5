"""Ring 5: the real vllm-mlx on the CPU, asked through the OpenAI SDK. One daemon for the module."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from config.vocabulary import EngineName
from tests.support.eventually import eventually
from tests.support.real_engines import (
    QUESTIONS,
    YARD,
    YARD_SOURCE,
    alive,
    ask,
    cosine,
    daemon_in,
    demand,
    endless,
    load,
    minilm,
    real,
    said_by_engine,
    sdk,
    shared_memory,
    tree,
)
from tests.support.running_daemon import RunningDaemon

pytestmark = real(EngineName.VLLM_MLX, timeout=600)

ENTRY = {"source": YARD_SOURCE, "engine": "vllm-mlx", "aliases": ["gpt-4o-mini"]}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    shared = shared_memory()
    with daemon_in(tmp_path_factory.mktemp("daemon"), {YARD: ENTRY}) as running:
        yield running
    assert shared_memory() <= shared


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[openai.OpenAI]:
    with sdk(daemon) as found:
        yield found


def test_the_questions_of_the_readme_are_answered_right(client: openai.OpenAI) -> None:
    for question, expected in QUESTIONS.items():
        assert ask(client, YARD, question).strip() == expected.strip()


def test_a_stream_is_streamed_and_carries_usage(client: openai.OpenAI) -> None:
    question, expected = next(iter(QUESTIONS.items()))
    chunks = list(
        client.chat.completions.create(
            model=YARD,
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=120,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == expected.strip()
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 5
    assert {chunk.model for chunk in chunks} == {YARD}


def test_completions_responses_and_messages_work(client: openai.OpenAI, daemon: RunningDaemon) -> None:
    answer = client.completions.create(model=YARD, prompt="modelyard is", max_tokens=8)
    assert answer.choices[0].text
    assert client.responses.create(model=YARD, input="What is modelyard?", max_output_tokens=16).output_text
    body = {"model": YARD, "max_tokens": 8, "messages": [{"role": "user", "content": "What is modelyard?"}]}
    message = httpx.post(f"{daemon.url}/v1/messages", json=body, timeout=60)
    assert message.status_code == 200, message.text
    assert message.json()["content"][0]["text"]


def test_an_alias_reaches_it_though_it_knows_one_name_only(client: openai.OpenAI) -> None:
    question, expected = next(iter(QUESTIONS.items()))
    assert ask(client, "gpt-4o-mini", question).strip() == expected.strip()


def test_what_it_says_of_itself_is_a_fact(daemon: RunningDaemon) -> None:
    load(daemon, YARD)
    chats = said_by_engine(daemon, YARD, "capabilities")
    assert (chats["value"], chats["source"]) == (["generate"], "/health model_type")


def test_an_unknown_model_is_a_404_that_names_the_nearest(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "yard-dmo", "hello")
    assert caught.value.code == "model_not_found"
    assert YARD in caught.value.message


def test_an_error_of_the_engine_comes_in_openais_envelope(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, YARD, "hello", max_tokens=10_000_000)
    assert 400 <= caught.value.status_code < 500
    assert caught.value.message


def test_a_client_that_leaves_stops_the_generation(client: openai.OpenAI, daemon: RunningDaemon) -> None:
    port = load(daemon, YARD)["port"]
    with endless(daemon, YARD) as answer:
        next(line for line in answer.iter_lines() if line.startswith("data: "))

    def running() -> int:
        found: int = httpx.get(f"http://127.0.0.1:{port}/v1/status", timeout=10).json()["num_running"]
        return found

    eventually(lambda: daemon.model(YARD)["in_flight"] == 0)
    eventually(lambda: running() == 0, within=30, what="vllm-mlx to stop generating")
    assert ask(client, YARD, "What is modelyard?")


def test_the_estimate_is_near_what_it_takes(daemon: RunningDaemon) -> None:
    load(daemon, YARD)
    eventually(lambda: daemon.model(YARD)["memory"]["measured_bytes"] is not None, within=30)
    memory = daemon.model(YARD)["memory"]
    assert 0.5 <= memory["measured_bytes"] / memory["estimated_bytes"] <= 1.25


def test_a_stream_cut_by_a_kill_ends_with_an_error_and_the_next_request_works(
    client: openai.OpenAI, daemon: RunningDaemon
) -> None:
    victim = tree(load(daemon, YARD)["pid"])
    with endless(daemon, YARD) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if line.startswith("data: "))
        victim["server"].kill()
        rest = [line for line in lines if line.startswith("data: ")]
    assert "data: [DONE]" not in rest
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"]
    assert ask(client, YARD, "What is modelyard?")
    assert daemon.model(YARD)["crashes"] >= 1
    assert not [name for name, process in victim.items() if alive(process)]


def test_a_checkpoint_that_cannot_be_loaded_says_why(daemon: RunningDaemon, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for file in Path(YARD_SOURCE).iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "martian"}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    entry = {"source": str(folder), "engine": "vllm-mlx"}
    with daemon_in(tmp_path / "daemon", {"odd": entry}) as other:
        error = other.chat("odd").json()["error"]
    assert error["code"] == "model_failed"
    assert "martian" in error["message"]


def test_an_embedder_is_served_without_a_chat_model(tmp_path: Path) -> None:
    with daemon_in(tmp_path, {"minilm": {"source": str(minilm()), "engine": "vllm-mlx"}}) as daemon:
        shown = load(daemon, "minilm")
        assert shown["capabilities"] == ["embed"]
        embeds = said_by_engine(daemon, "minilm", "capabilities")
        assert (embeds["value"], embeds["source"]) == (["embed"], "it answered /v1/embeddings")
        with sdk(daemon) as client:
            texts = ["a dog barks", "a puppy yelps", "corporate tax law"]
            found = client.embeddings.create(model="minilm", input=texts)
            with pytest.raises(openai.BadRequestError) as caught:
                ask(client, "minilm", "hello")
        near, other, far = (row.embedding for row in found.data)
        assert len(near) == 384
        assert cosine(near, other) > cosine(near, far) + 0.2
        assert found.model == "minilm"
        assert caught.value.code == "capability_missing"
        memory = daemon.model("minilm")["memory"]
        assert memory["measured_bytes"] <= memory["estimated_bytes"]


def test_a_killed_daemons_model_is_adopted_and_a_stop_under_an_open_stream_leaves_nothing(
    tmp_path: Path,
) -> None:
    settings = {"adopt_within": "60s", "shutdown_grace": "0.1s"}
    first = daemon_in(tmp_path, {YARD: ENTRY}, **settings).start()
    pid = load(first, YARD)["pid"]
    first.kill()
    with daemon_in(tmp_path, {YARD: ENTRY}, **settings) as heir:
        assert heir.chat(YARD, max_tokens=2).status_code == 200
        assert heir.model(YARD)["pid"] == pid
        assert heir.model(YARD)["starts"] == 0
        with endless(heir, YARD) as answer:
            lines = answer.iter_lines()
            next(line for line in lines if line.startswith("data: "))
            stopping = threading.Thread(target=heir.stop)
            stopping.start()
            rest = [line for line in lines if line.startswith("data: ")]
        stopping.join(60)
        assert "error" in json.loads(rest[-1].removeprefix("data: "))
        assert heir.process is not None
        assert heir.process.returncode == 0
        assert heir.descendants() == []


def test_a_stop_while_it_loads_ends_it_at_once(tmp_path: Path) -> None:
    with daemon_in(tmp_path, {YARD: ENTRY}) as daemon:
        loading = threading.Thread(target=demand, args=(daemon, YARD))
        loading.start()
        eventually(lambda: daemon.model(YARD)["pid"] is not None, within=30)
        engine = tree(daemon.model(YARD)["pid"])["server"]
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(30) == 0
        loading.join(60)
        assert not alive(engine)
