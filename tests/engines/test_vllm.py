"""Ring 5: the real vLLM (CPU build, or NVIDIA), asked through the OpenAI SDK. One daemon for the module.

A start takes half a minute and more, so every test uses what the one before has started, and starts what it
needs when it runs alone.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from config.vocabulary import EngineName
from tests.support.eventually import eventually
from tests.support.real_engines import (
    NO_END,
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

pytestmark = real(EngineName.VLLM, timeout=900)

ENTRY = {
    "source": YARD_SOURCE,
    "engine": "vllm",
    "aliases": ["gpt-4o-mini"],
    "dtype": "bfloat16",
    "max_model_len": 1024,
    "env": {"VLLM_ENABLE_RESPONSES_API_STORE": "1"},
}
EMBEDDER = "minilm"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    shared = shared_memory()
    models = {YARD: ENTRY, EMBEDDER: {"source": str(minilm()), "engine": "vllm"}}
    with daemon_in(tmp_path_factory.mktemp("daemon"), models) as running:
        yield running
    assert shared_memory() <= shared, "shared memory was left behind"


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[openai.OpenAI]:
    with sdk(daemon) as found:
        yield found


def test_the_questions_of_the_readme_are_answered_right(client: openai.OpenAI) -> None:
    for question, expected in QUESTIONS.items():
        assert ask(client, YARD, question).strip() == expected.strip()


def test_the_operators_context_is_the_engines(daemon: RunningDaemon) -> None:
    shown = load(daemon, YARD)
    assert shown["context_length"] == 1024
    log = (daemon.folder / "state" / "logs" / f"{YARD}.log").read_text()
    assert "Using max model len 1024" in log
    assert "'dtype': 'bfloat16'" in log


def test_what_it_says_of_itself_is_a_fact(daemon: RunningDaemon) -> None:
    load(daemon, EMBEDDER)
    context = said_by_engine(daemon, EMBEDDER, "context_length")
    assert (context["value"], context["source"]) == (256, "/v1/models")
    roles = said_by_engine(daemon, EMBEDDER, "capabilities")
    assert (roles["value"], roles["source"]) == (["embed"], "/openapi.json")
    load(daemon, YARD)
    chats = said_by_engine(daemon, YARD, "capabilities")
    assert (chats["value"], chats["source"]) == (["generate"], "/openapi.json")


def test_its_own_port_wants_a_key(daemon: RunningDaemon) -> None:
    port = load(daemon, YARD)["port"]
    body = {"model": YARD, "prompt": "x", "max_tokens": 1}
    assert httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=30).status_code == 401


def test_what_it_says_of_itself_is_passed_and_what_takes_it_apart_is_not(daemon: RunningDaemon) -> None:
    def ask(method: str, path: str) -> httpx.Response:
        return httpx.request(method, f"{daemon.url}/upstream/{YARD}{path}", timeout=300)

    assert "vllm:num_requests_running" in ask("GET", "/metrics").text
    assert ask("GET", "/version").json()["version"]
    listed = ask("GET", "/v1/models")  # below /v1 it wants its own key, which we put in
    assert YARD in [model["id"] for model in listed.json()["data"]]
    for path in ("/sleep", "/collective_rpc", "/v1/load_lora_adapter", "/kv_event_sources"):
        refused = ask("POST", path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "path_not_passed")


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


def test_completions_responses_messages_and_tokenize_work(
    client: openai.OpenAI, daemon: RunningDaemon
) -> None:
    answer = client.completions.create(model=YARD, prompt="modelyard is", max_tokens=8)
    assert answer.choices[0].text
    assert client.responses.create(model=YARD, input="What is modelyard?", max_output_tokens=16).output_text
    body = {"model": YARD, "max_tokens": 8, "messages": [{"role": "user", "content": "What is modelyard?"}]}
    message = httpx.post(f"{daemon.url}/v1/messages", json=body, timeout=60)
    assert message.status_code == 200, message.text
    assert message.json()["content"][0]["text"]
    words = {"model": YARD, "prompt": "modelyard"}
    counted = httpx.post(f"{daemon.url}/v1/tokenize", json=words, timeout=60)
    assert counted.status_code == 200, counted.text
    assert counted.json()["count"] >= 1


def test_it_is_started_under_its_aliases_too(client: openai.OpenAI, daemon: RunningDaemon) -> None:
    question, expected = next(iter(QUESTIONS.items()))
    answer = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=120,
    )
    assert (answer.choices[0].message.content or "").strip() == expected.strip()
    assert answer.model in ("gpt-4o-mini", YARD)


def test_an_unknown_model_is_a_404_that_names_the_nearest(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "yard-dmo", "hello")
    assert caught.value.code == "model_not_found"
    assert YARD in caught.value.message


def test_a_refusal_of_the_engine_comes_in_openais_envelope(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, YARD, "hello", max_tokens=5000)
    assert "1024" in caught.value.message


def test_a_client_that_leaves_stops_the_generation(client: openai.OpenAI, daemon: RunningDaemon) -> None:
    port = load(daemon, YARD)["port"]
    with endless(daemon, YARD, max_tokens=900) as answer:
        next(line for line in answer.iter_lines() if line.startswith("data: "))

    def running() -> float:
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        lines = [line for line in metrics.splitlines() if line.startswith("vllm:num_requests_running{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    eventually(lambda: daemon.model(YARD)["in_flight"] == 0)
    eventually(lambda: running() == 0, within=30, what="vLLM to stop generating")
    assert ask(client, YARD, "What is modelyard?")


def test_embeddings_are_served_by_a_second_one_beside_it(
    client: openai.OpenAI, daemon: RunningDaemon
) -> None:
    first = load(daemon, YARD)["pid"]
    texts = ["a dog barks", "a puppy yelps", "corporate tax law"]
    found = client.embeddings.create(model=EMBEDDER, input=texts)
    near, other, far = (row.embedding for row in found.data)
    assert len(near) == 384
    assert cosine(near, other) > cosine(near, far) + 0.2
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, EMBEDDER, "hello")
    assert caught.value.code == "capability_missing"
    assert daemon.model(YARD)["pid"] == first, "the first one had to go for the second"


def test_scores_and_reranks_come_from_the_embedder(daemon: RunningDaemon) -> None:
    body = {"model": EMBEDDER, "text_1": "a dog barks", "text_2": ["a puppy yelps", "corporate tax law"]}
    answer = httpx.post(f"{daemon.url}/v1/score", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    near, far = (row["score"] for row in answer.json()["data"])
    assert near > far


@pytest.mark.parametrize("name", [YARD, EMBEDDER])
def test_the_estimate_is_near_what_it_takes(daemon: RunningDaemon, name: str) -> None:
    load(daemon, name)
    eventually(lambda: daemon.model(name)["memory"]["measured_bytes"] is not None, within=30)
    memory = daemon.model(name)["memory"]
    assert 0.6 <= memory["measured_bytes"] / memory["estimated_bytes"] <= 1.1


@pytest.mark.parametrize("member", ["server", "EngineCore", "Worker"])
def test_whichever_process_is_killed_the_stream_ends_with_an_error_and_the_model_comes_back(
    client: openai.OpenAI, daemon: RunningDaemon, member: str
) -> None:
    shown = load(daemon, YARD)
    members = tree(shown["pid"])
    if member not in members:
        pytest.skip(f"this build has no {member}: {sorted(members)}")
    with endless(daemon, YARD, max_tokens=900) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if line.startswith("data: "))
        members[member].kill()
        rest = [line for line in lines if line.startswith("data: ")]
    assert "error" in json.loads(rest[-2 if rest[-1] == "data: [DONE]" else -1].removeprefix("data: "))
    eventually(
        lambda: not [name for name, process in members.items() if alive(process)],
        within=40,
        what="the whole tree to be gone",
    )
    assert ask(client, YARD, "What is modelyard?")
    after = daemon.model(YARD)
    assert after["pid"] != shown["pid"]
    assert after["crashes"] == shown["crashes"] + 1


def test_a_killed_resource_tracker_harms_nobody(client: openai.OpenAI, daemon: RunningDaemon) -> None:
    shown = load(daemon, YARD)
    members = tree(shown["pid"])
    if "tracker" not in members:
        pytest.skip(f"this build has no resource tracker: {sorted(members)}")
    members["tracker"].kill()
    assert ask(client, YARD, "What is modelyard?")
    assert httpx.post(f"{daemon.url}/api/models/{YARD}/unload", timeout=60).status_code == 200
    assert not [name for name, process in members.items() if alive(process)]


def test_a_kept_response_is_asked_of_the_process_that_made_it(
    client: openai.OpenAI, daemon: RunningDaemon
) -> None:
    question, expected = next(iter(QUESTIONS.items()))
    made = client.responses.create(model=YARD, input=question, background=True, temperature=0)
    eventually(lambda: client.responses.retrieve(made.id).status == "completed", within=60)
    assert client.responses.retrieve(made.id).output_text.strip() == expected.strip()
    with client.responses.create(model=YARD, input=question, stream=True, store=True) as events:
        # To its end: vLLM keeps a stream's response then.
        streamed, *_ = [event.response for event in events if event.type == "response.created"]
    assert client.responses.retrieve(streamed.id).id == streamed.id
    long = {"logit_bias": NO_END, "max_output_tokens": 900}
    slow = client.responses.create(model=YARD, input=question, background=True, extra_body=long)
    assert client.responses.cancel(slow.id).status == "cancelled"
    with pytest.raises(openai.NotFoundError, match="is known here"):
        client.responses.retrieve("resp_nobodys")
    assert httpx.post(f"{daemon.url}/api/models/{YARD}/unload", timeout=60).status_code == 200
    with pytest.raises(openai.NotFoundError, match="has stopped since"):
        client.responses.retrieve(made.id)
    assert daemon.model(YARD)["state"] == "stopped", "a lookup starts nothing"


def test_a_stop_during_the_boot_is_not_lost(daemon: RunningDaemon) -> None:
    """vLLM forgets a SIGTERM that comes while its EngineCore boots."""
    httpx.post(f"{daemon.url}/api/models/{YARD}/unload", timeout=60)
    loading = threading.Thread(target=demand, args=(daemon, YARD))
    loading.start()
    eventually(lambda: daemon.model(YARD)["pid"] is not None, within=30)
    server = psutil.Process(daemon.model(YARD)["pid"])
    eventually(lambda: "EngineCore" in tree(server.pid), within=120, what="the EngineCore to boot")
    members = tree(server.pid)
    began = time.monotonic()
    assert httpx.post(f"{daemon.url}/api/models/{YARD}/unload", timeout=90).status_code == 200
    took = time.monotonic() - began
    assert took < 30
    assert not [name for name, process in members.items() if alive(process)]
    loading.join(120)


def test_a_checkpoint_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for file in Path(YARD_SOURCE).iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["MartianForCausalLM"]}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    with daemon_in(tmp_path / "daemon", {"odd": {"source": str(folder), "engine": "vllm"}}) as other:
        body = {"model": "odd", "messages": [{"role": "user", "content": "hello"}]}
        error = httpx.post(f"{other.url}/v1/chat/completions", json=body, timeout=300).json()["error"]
    assert error["code"] == "model_failed"
    assert "MartianForCausalLM" in error["message"]


def test_a_killed_daemons_model_is_adopted_and_a_stop_under_an_open_stream_leaves_nothing(
    tmp_path: Path,
) -> None:
    settings = {"adopt_within": "60s", "shutdown_grace": "0.1s"}
    shared = shared_memory()
    first = daemon_in(tmp_path, {YARD: ENTRY}, **settings).start()
    pid = load(first, YARD)["pid"]
    first.kill()
    with daemon_in(tmp_path, {YARD: ENTRY}, **settings) as heir:
        assert heir.chat(YARD, max_tokens=2).status_code == 200
        assert heir.model(YARD)["pid"] == pid
        assert heir.model(YARD)["starts"] == 0
        with endless(heir, YARD, max_tokens=900) as answer:
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
    assert shared_memory() <= shared
