"""The seed's API at the control app, and (ring 4) its examples against a real daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from config.keys import hash_of, new_key
from config.schema import VirtualConfig
from registry.errors import ModelUnusableError
from supervisor.errors import ModelFailedError
from supervisor.lifecycle import State
from tests.support.control import Answer, ControlWorld, Pair, Served, endpoint_model, local_model
from tests.support.eventually import eventually
from tests.support.fake_fleet import Call
from tests.support.running_daemon import RunningDaemon, events, scripted

API = "/api/v1/inference"


async def send(pair: Pair, path: str, body: Any, **headers: str) -> Answer:
    """POST *body*, as JSON unless it is bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Host": "127.0.0.1:8080", "Content-Length": str(len(raw)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    pair.writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + raw)
    await pair.writer.drain()
    status, found = await pair.head()
    return Answer(status, found, await pair.reader.readexactly(int(found["content-length"])))


def post(world: ControlWorld, verb: str, body: Any, **headers: str) -> Answer:
    async def scenario(served: Served) -> Answer:
        return await send(await served.pair(), f"{API}/{verb}", body, **headers)

    return world.run(scenario)


@pytest.fixture
def world() -> ControlWorld:
    made = ControlWorld()
    made.add(local_model("org/qwen:8b@q4", aliases=("qwen",)))
    made.add(local_model("llama"))
    made.add(endpoint_model("elsewhere"))
    return made


def test_load_by_any_name_answers_when_it_is_ready(world: ControlWorld) -> None:
    answer = post(world, "load", {"model": "qwen"})
    assert answer.status == 200
    found = answer.json()
    assert (found["status"], found["model"], found["state"]) == ("loaded", "org/qwen:8b@q4", "ready")
    assert world.fleet.calls == [Call("load", "org/qwen:8b@q4")]


def test_load_by_a_virtual_name_starts_the_model_that_would_answer(world: ControlWorld) -> None:
    world.virtual["smart"] = VirtualConfig(models=("llama", "qwen"))
    assert post(world, "load", {"model": "smart"}).json()["model"] == "llama"
    assert world.fleet.calls == [Call("load", "llama")]


def test_load_without_a_model_and_without_a_default_says_what_there_is(world: ControlWorld) -> None:
    nothing: tuple[Any, ...] = ({}, b"")
    for body in nothing:
        answer = post(world, "load", body)
        assert (answer.status, answer.code()) == (400, "model_required")


def test_an_endpoints_model_is_loaded_already_and_cannot_be_unloaded(world: ControlWorld) -> None:
    assert post(world, "load", {"model": "elsewhere"}).json()["state"] == "endpoint"
    assert world.fleet.calls == []
    assert post(world, "unload", {"model": "elsewhere"}).code() == "not_ours"


def test_a_load_that_fails_says_why(world: ControlWorld) -> None:
    world.fleet.fails["llama"] = ModelFailedError("llama exited 1: CUDA out of memory", retry_after=5)
    answer = post(world, "load", {"model": "llama"})
    assert (answer.status, answer.code()) == (503, "model_failed")


def test_retry_clears_what_a_crash_left(world: ControlWorld) -> None:
    world.fleet.set("llama", State.FAILED)
    post(world, "load", {"model": "llama", "retry": True})
    assert [call.verb for call in world.fleet.calls] == ["unload", "load"]


def test_a_model_with_a_problem_is_refused_with_it(world: ControlWorld) -> None:
    world.add(local_model("broken", problem=ModelUnusableError("broken: no weights")))
    assert post(world, "load", {"model": "broken"}).code() == "model_unusable"


def test_unload_stops_the_one_that_is_loaded(world: ControlWorld) -> None:
    world.fleet.set("llama", State.READY)
    answer = post(world, "unload", {"force": True})
    assert answer.json()["model"] == "llama"
    assert answer.json()["state"] == "stopped"
    assert world.fleet.calls == [Call("unload", "llama", force=True)]


def test_unload_with_nothing_loaded_is_done_already(world: ControlWorld) -> None:
    assert post(world, "unload", {}).json() == {"status": "unloaded", "model": None}


def test_unload_with_several_loaded_asks_which(world: ControlWorld) -> None:
    world.fleet.set("llama", State.READY)
    world.fleet.set("org/qwen:8b@q4", State.READY)
    answer = post(world, "unload", {})
    assert (answer.status, answer.code()) == (400, "model_required")
    assert "llama, org/qwen:8b@q4" in answer.json()["error"]["message"]
    assert world.fleet.calls == []


@pytest.mark.parametrize(
    ("body", "code"), [(b"{", "invalid_json"), (b"[1]", "bad_request"), (b'"x"', "bad_request")]
)
@pytest.mark.parametrize("verb", ["load", "unload", "generate"])
def test_a_body_that_is_no_object_is_400(world: ControlWorld, verb: str, body: bytes, code: str) -> None:
    answer = post(world, verb, body)
    assert (answer.status, answer.code()) == (400, code)


def test_a_request_that_has_been_through_us_is_not_sent_round_again(world: ControlWorld) -> None:
    answer = post(world, "generate", {"prompt": "x"}, Via="1.1 modelyard")
    assert (answer.status, answer.code()) == (508, "loop_detected")


def test_a_front_that_cannot_be_reached_is_503_and_worth_another_try() -> None:
    world = ControlWorld(listen=("127.0.0.1:1",))
    answer = post(world, "generate", {"prompt": "x"})
    assert (answer.status, answer.code()) == (503, "front_unreachable")
    assert answer.headers["retry-after"] == "5"


def test_a_page_of_another_site_cannot_use_it(world: ControlWorld) -> None:
    answer = post(world, "generate", {"prompt": "x"}, Origin="https://evil.example")
    assert (answer.status, answer.code()) == (403, "cross_origin")


def test_the_status_is_there_at_once(world: ControlWorld) -> None:
    async def scenario(served: Served) -> Answer:
        return await served.get(f"{API}/status")

    found = world.run(scenario).json()
    assert (found["status"], found["model_loaded"], found["loaded_models"]) == ("idle", False, [])
    assert found["available_models"] == ["elsewhere", "llama", "org/qwen:8b@q4"]


# -- ring 4: the examples


def call(daemon: RunningDaemon, verb: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{daemon.url}{API}/{verb}", json=body, timeout=30)


SETTINGS = {
    "models": {"a": scripted("--echo-headers", capabilities=["generate", "vision"]), "b": scripted()},
    "default_model": "b",
}


@pytest.mark.process
def test_the_whole_of_it_against_a_daemon(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, SETTINGS) as daemon:
        loaded = call(daemon, "load", model="a").json()
        assert (loaded["status"], loaded["model"], loaded["state"]) == ("loaded", "a", "ready")
        status = httpx.get(f"{daemon.url}{API}/status").json()
        assert (status["status"], status["model"], status["default_model"]) == ("ready", "a", "b")
        answer = call(daemon, "generate", prompt="hello", model="a", max_tokens=4)
        assert answer.json() == {
            "text": "served by a pid",
            "finish_reason": "stop",
            "model": "a",
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        }
        # A virtual name: whoever would answer it, here what is warm.
        assert call(daemon, "load", model="auto").json()["model"] == "a"
        assert call(daemon, "generate", prompt="hello", model="auto").json()["model"] == "a"
        # Without a model: the default one, which is started for it.
        assert call(daemon, "generate", prompt="hello").json()["text"].startswith("served by b")
        assert call(daemon, "unload", model="a").json()["state"] == "stopped"
        assert call(daemon, "unload").json()["model"] == "b"
        assert httpx.get(f"{daemon.url}{API}/status").json()["status"] == "idle"


@pytest.mark.process
def test_a_generated_stream_has_the_seeds_events_and_ends_with_a_reason(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted("--ready-after", "1.5")}}) as daemon:
        body = {"prompt": "hello", "stream": True}
        with httpx.stream("POST", f"{daemon.url}{API}/generate", json=body, timeout=30) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = list(answer.iter_lines())
        assert any(line.startswith(": loading a") for line in lines)
        found = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        assert all(set(event) == {"text", "finish_reason"} for event in found)
        assert "".join(event["text"] for event in found).startswith("served by a pid")
        assert [event["finish_reason"] for event in found] == [None] * (len(found) - 1) + ["stop"]


@pytest.mark.process
def test_refusals_are_the_fronts_own(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"bad": scripted("--exit-at-start")}}) as daemon:
        unknown = call(daemon, "generate", prompt="x", model="nobody")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
        failed = call(daemon, "generate", prompt="x", model="bad", stream=True)
        assert "model_failed" in failed.text
        again = call(daemon, "generate", prompt="x", model="bad")
        assert (again.status_code, again.json()["error"]["code"]) == (503, "model_failed")
        assert "retry-after" in again.headers


@pytest.mark.process
def test_a_stream_that_breaks_ends_with_an_error_and_no_reason(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted("--cut-after", "3")}}) as daemon:
        found = events(call(daemon, "generate", prompt="x", stream=True))
        assert "error" in found[-1]
        assert all(event.get("finish_reason") is None for event in found)


@pytest.mark.process
def test_a_caller_that_leaves_stops_the_generation(tmp_path: Path) -> None:
    slow = scripted("--chunks", "2000", "--chunk-interval", "0.02")
    with RunningDaemon(tmp_path, {"models": {"a": slow}}) as daemon:
        body = {"prompt": "hello", "stream": True}
        with httpx.stream("POST", f"{daemon.url}{API}/generate", json=body, timeout=30) as answer:
            next(line for line in answer.iter_lines() if line.startswith("data: "))
        stats = f"http://127.0.0.1:{daemon.model('a')['port']}/_stats"
        eventually(lambda: httpx.get(stats).json()["disconnects"] == 1)
        eventually(lambda: daemon.model("a")["in_flight"] == 0)


@pytest.mark.process
def test_images_reach_the_engine_by_url_base64_and_allowed_path(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300_000))
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    settings = {**SETTINGS, "seed": {"local_images": True, "image_directories": [str(folder)]}}
    data = "data:image/png;base64,iVBORw0KGgo="
    with RunningDaemon(tmp_path, settings) as daemon:
        images = ["https://example.org/cat.png", data, f"{folder}/cat.png"]
        answer = call(daemon, "generate", prompt="what is it?", model="a", images=images)
        assert answer.status_code == 200, answer.text
        port = daemon.model("a")["port"]
        sent = httpx.get(f"http://127.0.0.1:{port}/_stats").json()["last"]["body"]["messages"][0]["content"]
        urls = [part["image_url"]["url"] for part in sent[:3]]
        assert urls[:2] == images[:2]
        assert urls[2].startswith("data:image/png;base64,iVBORw0KGgoAAAA")
        assert len(urls[2]) > 400_000
        refused = call(daemon, "generate", prompt="x", model="a", images=[f"{tmp_path}/secret.png"])
        assert refused.json()["error"]["code"] == "image_not_found"


@pytest.mark.process
def test_images_by_path_take_a_key_of_the_admin_scope_where_keys_are_on(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8))
    keys = {name: new_key() for name in ("app", "boss")}
    settings = {
        **SETTINGS,
        "seed": {"local_images": True, "image_directories": [str(tmp_path)]},
        "keys": {
            "app": {"hash": hash_of(keys["app"])},
            "boss": {"hash": hash_of(keys["boss"]), "scope": "admin"},
        },
    }
    body = {"prompt": "what is it?", "model": "a", "images": [f"{tmp_path}/cat.png"]}
    with RunningDaemon(tmp_path / "yard", settings) as daemon:

        def asked(name: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {keys[name]}"}
            return httpx.post(f"{daemon.url}{API}/generate", json=body, headers=headers, timeout=30)

        refused = asked("app")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "local_images_off")
        assert asked("boss").json()["text"].startswith("served by a")


@pytest.mark.process
def test_images_by_path_are_off_unless_switched_on(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, SETTINGS) as daemon:
        refused = call(daemon, "generate", prompt="x", images=["/etc/passwd"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "local_images_off")


# -- ring 4: chat completions under the seed's path


@pytest.mark.process
def test_chat_completions_under_the_seeds_path_are_the_fronts(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, SETTINGS) as daemon:
        url = f"{daemon.url}/api/v1/chat/completions"
        messages = [{"role": "user", "content": "hello"}]
        assert "served by b" in httpx.post(url, json={"messages": messages}, timeout=30).text
        body = {"messages": messages, "stream": True, "model": "a"}
        with httpx.stream("POST", url, json=body, timeout=30) as answer:
            found = events(answer)
        assert found[-1] == "[DONE]"
        # The engine has only today's path.
        assert found[0]["echo"]["path"] == "/v1/chat/completions"
        picture = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
        content = [{"type": "text", "text": "what is it?"}, picture]
        body = {"model": "a", "messages": [{"role": "user", "content": content}]}
        echoed = httpx.post(url, json=body, timeout=30).json()["echo"]["body"]
        assert echoed["messages"][0]["content"] == content


@pytest.mark.process
def test_the_openai_client_speaks_to_the_seeds_base_url(tmp_path: Path) -> None:
    with (
        RunningDaemon(tmp_path, SETTINGS) as daemon,
        OpenAI(base_url=f"{daemon.url}/api/v1", api_key="none", max_retries=0) as client,
    ):
        answer = client.chat.completions.create(model="a", messages=[{"role": "user", "content": "hi"}])
        assert str(answer.choices[0].message.content).startswith("served by a")
        stream = client.chat.completions.create(
            model="a", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert text.startswith("served by a")
