"""`modelyard.Client` and `AsyncClient`: against a stand-in, and (ring 4) against a real daemon."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

import modelyard
from modelyard.asking import socket_in
from modelyard.client import (
    AnswerCutError,
    AsyncClient,
    Client,
    ModelyardError,
    NoAnswerError,
    RefusedError,
    UnreachableError,
    Usage,
)
from modelyard.results import StreamReader, conversation, image_url, read_refusal
from tests.support.daemon_stub import Asked, DaemonStub, Hold, Reply, Stream, words
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, free_port, scripted
from tests.support.trees import clean_folder

ROOT = Path(modelyard.__file__).parent.parent
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
CHAT = "POST /v1/chat/completions"


@pytest.fixture(autouse=True)
def _nobodys_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODELYARD_URL", "MODELYARD_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def completion(text: str, **message: Any) -> Reply:
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return Reply({"model": "m", "choices": [choice], "usage": usage})


# -- where to


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("unix:/run/yard.sock", "/run/yard.sock"),
        ("unix:///run/yard.sock", "/run/yard.sock"),
        ("http+unix://%2Frun%2Fyard.sock", "/run/yard.sock"),
        ("http+unix://%2Frun%2Fyard.sock/v1", "/run/yard.sock"),
        ("http://unix:8080", None),
        ("unix:8080", None),
    ],
)
def test_a_socket_file_is_an_address_too(given: str, path: str | None) -> None:
    assert socket_in(given) == path


# httpcore leaves the socket of a failed connect to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_socket_file_that_nobody_listens_at_is_named() -> None:
    with Client("unix:/nowhere/yard.sock") as yard:
        assert yard.url == "unix:/nowhere/yard.sock"
        with pytest.raises(UnreachableError, match=r"unix:/nowhere/yard\.sock"):
            yard.models()


@pytest.mark.parametrize("url", ["unix:relative", "http+unix://run"])
def test_what_is_no_path_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="unix:/its/socket"):
        Client(url)


# -- what is sent


def test_a_question_is_a_conversation_of_one_turn() -> None:
    with DaemonStub({CHAT: completion("yes")}) as stub, Client(stub.url, model="m") as yard:
        answer = yard.chat("really?", system="be brief", max_tokens=5, temperature=None)
        assert stub.asked == [
            Asked(
                "POST",
                "/v1/chat/completions",
                {
                    "model": "m",
                    "max_tokens": 5,
                    "messages": [
                        {"role": "system", "content": "be brief"},
                        {"role": "user", "content": "really?"},
                    ],
                },
            )
        ]
    assert (answer.text, str(answer), answer.finish_reason) == ("yes", "yes", "stop")
    assert answer.usage == Usage(3, 2)
    assert answer.usage.total_tokens == 5


def test_a_call_may_name_another_model_and_a_client_none() -> None:
    with DaemonStub({CHAT: completion("yes")}) as stub:
        with Client(stub.url, model="m") as yard:
            yard.generate("x", model="other")
        with Client(stub.url) as yard:
            yard.generate("x")
        assert [asked.body.get("model") for asked in stub.asked] == ["other", None]


def test_a_raw_prompt_goes_to_completions() -> None:
    reply = Reply({"choices": [{"text": " there was", "finish_reason": "length"}]})
    with DaemonStub({"POST /v1/completions": reply}) as stub, Client(stub.url) as yard:
        assert yard.generate("Once", raw=True, max_tokens=2).text == " there was"
        assert stub.asked[0].body == {"prompt": "Once", "max_tokens": 2}


def test_reasoning_and_tool_calls_are_kept_apart_from_the_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    reply = completion("", reasoning="hm", tool_calls=[call])
    with DaemonStub({CHAT: reply}) as stub, Client(stub.url) as yard:
        answer = yard.chat([{"role": "user", "content": "x"}])
    assert (answer.text, answer.reasoning, answer.tool_calls) == ("", "hm", (call,))


def test_images_are_urls_bytes_or_files(tmp_path: Path) -> None:
    file = tmp_path / "cat.png"
    file.write_bytes(PNG)
    data = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    turns = conversation("what?", images=["https://x/y.png", PNG, file])
    urls = [part["image_url"]["url"] for part in turns[0]["content"][:3]]
    assert urls == ["https://x/y.png", data, data]
    assert turns[0]["content"][3] == {"type": "text", "text": "what?"}
    said: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    assert len(conversation(said, images=[PNG])[0]["content"]) == 2
    assert said[0]["content"] == [{"type": "text", "text": "a"}]


@pytest.mark.parametrize(("image", "message"), [("cat.png", r"pathlib\.Path"), (b"%PDF", "is no PNG")])
def test_what_is_no_image_is_a_value_error(image: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_url(image)


def test_a_key_is_sent_and_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    for given in (None, "given"):
        monkeypatch.setenv("MODELYARD_API_KEY", "from-environment")
        with Client("127.0.0.1:9", api_key=given) as yard:
            seen.append(yard._http.headers.get("authorization"))
    assert seen == ["Bearer from-environment", "Bearer given"]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (None, "http://127.0.0.1:8080"),
        ("yard:9", "http://yard:9"),
        ("https://yard.example/v1/", "https://yard.example"),
    ],
)
def test_where_the_daemon_is(given: str | None, url: str) -> None:
    with Client(given) as yard:
        assert yard.url == url


def test_an_address_that_is_none_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="no address of a daemon"):
        Client("ftp://yard")


# -- what goes wrong


def test_a_refusal_has_a_code_to_act_on() -> None:
    body = {"error": {"message": "no model is called x", "code": "model_not_found"}}
    with (
        DaemonStub({CHAT: Reply(body, 404)}) as stub,
        Client(stub.url) as yard,
        pytest.raises(RefusedError, match="no model is called x") as caught,
    ):
        yard.chat("x")
    assert (caught.value.code, caught.value.status) == ("model_not_found", 404)


def test_a_refusal_says_when_to_come_again() -> None:
    assert read_refusal(503, b"{}", retry_after="7").retry_after == 7.0
    assert read_refusal(503, b"{}", retry_after="Wed, 21 Oct").retry_after is None
    assert str(read_refusal(502, b"<html>")) == "the answer was 502: <html>"


def test_no_daemon_is_unreachable_and_says_what_to_do() -> None:
    with Client(f"127.0.0.1:{free_port()}") as yard, pytest.raises(UnreachableError, match="modelyard serve"):
        yard.models()


def test_a_stranger_is_unreachable_too() -> None:
    with (
        DaemonStub({"GET /api/status": Reply(b"<html>")}) as stub,
        Client(stub.url) as yard,
        pytest.raises(UnreachableError, match="not modelyard"),
    ):
        yard.status()


def test_silence_is_no_answer() -> None:
    with (
        DaemonStub({CHAT: Stream([Hold()])}) as stub,
        Client(stub.url, timeout=0.05) as yard,
        pytest.raises(NoAnswerError),
    ):
        yard.chat("x")


def test_every_error_is_a_modelyard_error() -> None:
    errors = (AnswerCutError, NoAnswerError, RefusedError, UnreachableError)
    assert all(issubclass(error, ModelyardError) for error in errors)


# -- streams


def test_a_stream_is_pieces_and_then_the_whole() -> None:
    lines = [": loading m 42%", "", *words("Hel", "lo")]
    with DaemonStub({CHAT: Stream(lines)}) as stub, Client(stub.url) as yard:
        stream = yard.stream("x")
        assert [str(piece) for piece in stream] == ["Hel", "lo"]
        assert (stream.text, stream.read.complete, stream.read.note) == ("Hello", True, "loading m 42%")
        assert stub.asked[0].body["stream_options"] == {"include_usage": True}


def test_a_stream_without_its_end_was_cut_and_keeps_what_came() -> None:
    with DaemonStub({CHAT: Stream(words("Hel", done=False))}) as stub, Client(stub.url) as yard:
        stream = yard.stream("x")
        with pytest.raises(AnswerCutError, match="after 3 characters"):
            list(stream)
        assert stream.text == "Hel"


def test_an_error_in_a_stream_is_a_refusal() -> None:
    event = 'data: {"error": {"message": "the engine died", "code": "engine_crashed"}}'
    with (
        DaemonStub({CHAT: Stream([*words("Hel", done=False), event, ""])}) as stub,
        Client(stub.url) as yard,
        pytest.raises(RefusedError, match="the engine died") as caught,
    ):
        list(yard.stream("x"))
    assert caught.value.code == "engine_crashed"


def test_a_refused_stream_is_refused_at_the_first_piece() -> None:
    body = {"error": {"message": "full", "code": "queue_full"}}
    with (
        DaemonStub({CHAT: Reply(body, 429)}) as stub,
        Client(stub.url) as yard,
        pytest.raises(RefusedError) as caught,
    ):
        next(yard.stream("x"))
    assert caught.value.code == "queue_full"


def test_leaving_a_stream_closes_its_connection() -> None:
    with DaemonStub({CHAT: Stream([*words("Hel", done=False), Hold()])}) as stub, Client(stub.url) as yard:
        with yard.stream("x") as stream:
            assert str(next(stream)) == "Hel"
        assert stub.client_left.wait(10)


def test_a_reader_takes_reasoning_usage_and_reasons() -> None:
    reader = StreamReader()
    first = reader.feed('data: {"model":"m","choices":[{"delta":{"reasoning":"hm","content":"a"}}]}')
    assert [(str(piece), piece.thinking) for piece in first] == [("hm", True), ("a", False)]
    reader.feed('data: {"choices":[{"delta":{},"finish_reason":"stop"}]}')
    reader.feed('data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}')
    assert (reader.text, reader.finish_reason, reader.usage, reader.model) == ("a", "stop", Usage(1, 2), "m")
    with pytest.raises(AnswerCutError, match="no JSON"):
        reader.feed("data: {broken")


def test_the_asynchronous_client_does_the_same() -> None:
    lines = words("Hel", "lo")
    refusal = Reply({"error": {"message": "no", "code": "model_not_found"}}, 404)
    turns: list[Reply | Stream] = [completion("yes"), Stream(lines), refusal]
    turns += [Stream(words("H", done=False)), refusal]

    async def scenario(url: str) -> None:
        async with AsyncClient(url, model="m") as yard:
            assert (await yard.chat("x")).text == "yes"
            stream = yard.stream("x")
            assert [str(piece) async for piece in stream] == ["Hel", "lo"]
            assert stream.text == "Hello"
            with pytest.raises(RefusedError):
                await yard.generate("x")
            with pytest.raises(AnswerCutError):
                async for _ in yard.stream("x"):
                    pass
            with pytest.raises(RefusedError):
                await anext(yard.stream("x"))
        async with AsyncClient(f"127.0.0.1:{free_port()}") as nobody:
            with pytest.raises(UnreachableError):
                await nobody.status()

    with DaemonStub({CHAT: turns}) as stub:
        asyncio.run(scenario(stub.url))


# -- importing it


def python(program: str, cwd: Path, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path)},
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.process
def test_importing_modelyard_costs_nothing(tmp_path: Path) -> None:
    program = "import modelyard, sys; print(sorted({'httpx', 'json', 'config'} & set(sys.modules)))"
    assert python(program, tmp_path, ROOT) == "[]\n"


@pytest.mark.process
def test_an_installed_client_does_not_touch_the_import_path(tmp_path: Path) -> None:
    # As in a wheel: our other packages lie under modelyard/_root, where nobody else can see them.
    shutil.copytree(ROOT / "modelyard", tmp_path / "site" / "modelyard")
    (tmp_path / "site" / "modelyard" / "_root").mkdir()
    program = (
        "import sys; before = list(sys.path)\n"
        "from modelyard import AsyncClient, Client\n"
        "from modelyard.client import RefusedError\n"
        "assert sys.path == before\n"
        "print(Client('127.0.0.1:9').url, sorted({'router', 'config', 'cli'} & set(sys.modules)))"
    )
    assert python(program, tmp_path, tmp_path / "site") == "http://127.0.0.1:9 []\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Cleint'"):
        modelyard.__getattr__("Cleint")


# -- ring 4


@pytest.mark.process
def test_both_clients_by_a_socket_file() -> None:
    with clean_folder() as folder:
        path = folder / "yard.sock"
        daemon = RunningDaemon(folder, {"models": {"a": scripted()}}, by_file=True)
        daemon.settings["listen"] = [f"127.0.0.1:{daemon.port}", f"unix:{path}"]
        with daemon, Client(f"unix:{path}", model="a") as yard:
            assert "served by a" in yard.chat("hi").text
            assert "served by a" in "".join(piece.text for piece in yard.stream("hi"))

            async def ask() -> str:
                async with AsyncClient(f"unix://{path}", model="a") as other:
                    return (await other.chat("hi")).text

            assert "served by a" in asyncio.run(ask())


@pytest.mark.process
def test_a_model_from_cold_to_gone(tmp_path: Path) -> None:
    settings = {"models": {"a": scripted(), "b": scripted()}, "default_model": "b"}
    with RunningDaemon(tmp_path, settings) as daemon, Client(daemon.url, model="a") as yard:
        assert {model.id: model.state for model in yard.models()} == {"a": "stopped", "b": "stopped"}
        loaded = yard.load()
        assert (loaded.model, loaded.state, loaded.engine) == ("a", "ready", "command")
        assert loaded.load_seconds is not None
        assert yard.status().loaded == ("a",)
        assert yard.chat("hello").text.startswith("served by a")
        stream = yard.stream("hello")
        assert "".join(str(piece) for piece in stream).startswith("served by a")
        assert stream.read.usage == Usage(3, 8)
        assert yard.generate("hello", raw=True, max_tokens=2).text == "served by"
        assert yard.unload().state == "stopped"
        with Client(daemon.url) as anybody:
            assert anybody.load().model == "b"
            with pytest.raises(RefusedError) as caught:
                anybody.chat("x", model="nobody")
        assert (caught.value.code, caught.value.status) == ("model_not_found", 404)


@pytest.mark.process
def test_leaving_a_stream_stops_the_generation(tmp_path: Path) -> None:
    slow = scripted("--chunks", "2000", "--chunk-interval", "0.02")
    with RunningDaemon(tmp_path, {"models": {"a": slow}}) as daemon, Client(daemon.url) as yard:
        with yard.stream("x") as stream:
            next(stream)
        eventually(lambda: daemon.model("a")["in_flight"] == 0)
        stats = f"http://127.0.0.1:{daemon.model('a')['port']}/_stats"
        eventually(lambda: httpx.get(stats).json()["disconnects"] == 1)


@pytest.mark.process
def test_threads_share_a_client_and_tasks_an_asynchronous_one(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}) as daemon:
        texts: list[str] = []
        with Client(daemon.url) as yard:
            threads = [threading.Thread(target=lambda: texts.append(yard.chat("x").text)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert len(texts) == 8

        async def many() -> list[str]:
            async with AsyncClient(daemon.url) as yard:
                return [answer.text for answer in await asyncio.gather(*(yard.chat("x") for _ in range(8)))]

        assert set(asyncio.run(many())) == set(texts)


@pytest.mark.process
def test_a_vision_model_is_sent_a_file_of_the_client(tmp_path: Path) -> None:
    file = tmp_path / "cat.png"
    file.write_bytes(PNG)
    with (
        RunningDaemon(tmp_path, {"models": {"a": scripted("--echo-headers")}}) as daemon,
        Client(daemon.url) as yard,
    ):
        sent = yard.generate("what?", images=[file]).raw["echo"]["body"]["messages"][0]["content"]
    assert sent[0]["image_url"]["url"] == image_url(file)
    assert json.dumps(sent[1]) == '{"type": "text", "text": "what?"}'
