"""What the seed's API takes and answers, as tables."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.listening import reached_at
from config.schema import SeedConfig
from registry.engine import ModelId
from router.control.door import Caller
from router.control.seed_images import may_name_files, read_image
from router.control.seed_shapes import (
    Generation,
    ImagePath,
    Picture,
    image_type,
    named_model,
    read_generation,
    seed_answer,
    seed_event,
    seed_status,
    todays_request,
)
from router.keys import Grant, Key, KeyHolder, Need, Use
from router.refused import RefusedError
from supervisor.lifecycle import State
from supervisor.view import FleetView
from tests.support.control import local_model
from tests.support.fake_fleet import instance_view

PNG = b"\x89PNG\r\n\x1a\n" + bytes(80)
JPEG = b"\xff\xd8\xff\xe0" + bytes(80)
WEBP = b"RIFF\x10\x00\x00\x00WEBP" + bytes(80)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- requests


def test_a_prompt_becomes_a_conversation_of_one_turn() -> None:
    asked = read_generation({"prompt": "hi", "system": "be kind", "max_tokens": 5, "stop": ["."]})
    path, body = todays_request(asked, ())
    assert path == "/v1/chat/completions"
    assert body == {
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "stop": ["."],
        "stream": False,
    }


def test_a_raw_prompt_stays_one() -> None:
    asked = read_generation({"prompt": "hi", "raw": True, "model": "m", "stream": True})
    assert todays_request(asked, ()) == ("/v1/completions", {"prompt": "hi", "model": "m", "stream": True})


def test_images_come_before_the_words_about_them() -> None:
    asked = read_generation({"prompt": "what?", "images": ["https://x/a.png", "https://x/b.png"]})
    _, body = todays_request(asked, tuple(str(one) for one in asked.images))
    kinds = [part.get("image_url", part.get("text")) for part in body["messages"][0]["content"]]
    assert kinds == [{"url": "https://x/a.png"}, {"url": "https://x/b.png"}, "what?"]


@pytest.mark.parametrize(
    ("given", "image"),
    [
        ("https://host/cat.png", "https://host/cat.png"),
        (f"data:image/png;base64,{b64(PNG)}", f"data:image/png;base64,{b64(PNG)}"),
        (b64(PNG), f"data:image/png;base64,{b64(PNG)}"),
        # Begins with a slash, and is no path.
        (b64(JPEG), f"data:image/jpeg;base64,{b64(JPEG)}"),
        (b64(WEBP), f"data:image/webp;base64,{b64(WEBP)}"),
        ("/pictures/cat.png", ImagePath("/pictures/cat.png")),
        ("/9j/cat.jpg", ImagePath("/9j/cat.jpg")),
        ("file:///pictures/cat.png", ImagePath("/pictures/cat.png")),
        ("file://localhost/cat.png", ImagePath("/cat.png")),
        ({"url": "https://x/y"}, "https://x/y"),
        ({"path": "/a.png"}, ImagePath("/a.png")),
        ({"base64": b64(PNG)}, f"data:image/png;base64,{b64(PNG)}"),
        ({"type": "image_url", "image_url": {"url": "https://x/y"}}, "https://x/y"),
    ],
)
def test_an_image_may_be_said_in_many_ways(given: object, image: object) -> None:
    assert read_generation({"prompt": "x", "images": [given]}).images == (image,)
    assert read_generation({"prompt": "x", "image": given}).images == (image,)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "prompt", "must not be empty"),
        ({"prompt": ""}, "prompt", "must not be empty"),
        ({"prompt": ["a"]}, "prompt", "the text"),
        ({"messages": []}, "messages", "/v1/chat/completions"),
        ({"prompt": "x", "model": 3}, "model", "the id of a model"),
        ({"prompt": "x", "stream": "yes"}, "stream", "true or false"),
        ({"prompt": "x", "system": 1}, "system", "text"),
        ({"prompt": "x", "n": 2}, "n", "one answer"),
        ({"prompt": "x", "raw": True, "system": "y"}, "raw", "no `system`"),
        ({"prompt": "x", "images": ["cat.png"]}, "images", "neither a URL"),
        ({"prompt": "x", "images": [5]}, "images", "a URL"),
        ({"prompt": "x", "images": [{"wrong": 1}]}, "images", "a URL"),
        ({"prompt": "x", "images": ["https://x"] * 65}, "images", "more than the 64"),
    ],
)
def test_what_is_not_understood_is_400_and_says_what_to_write(
    body: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        read_generation(body)
    assert (caught.value.refusal.status, caught.value.refusal.param) == (400, param)
    assert words in caught.value.refusal.message


def test_an_empty_name_is_no_name() -> None:
    assert named_model({"model": None}) is None
    with pytest.raises(RefusedError):
        named_model({"model": ""})


def test_defaults() -> None:
    assert read_generation({"prompt": "x"}) == Generation("x")


# -- answers


def test_a_whole_answer() -> None:
    usage = {"prompt_tokens": 1}
    choice = {"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    answer = {"model": "m", "choices": [choice], "usage": usage}
    assert seed_answer(answer) == {"text": "yes", "finish_reason": "stop", "model": "m", "usage": usage}
    raw = {"model": "m", "choices": [{"text": "yes", "finish_reason": "length"}]}
    assert seed_answer(raw)["text"] == "yes"
    assert seed_answer({})["text"] == ""


@pytest.mark.parametrize(
    ("data", "event"),
    [
        ({"choices": [{"delta": {"content": "a"}}]}, {"text": "a", "finish_reason": None}),
        ({"choices": [{"text": "a", "finish_reason": None}]}, {"text": "a", "finish_reason": None}),
        ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"text": "", "finish_reason": "stop"}),
        ({"choices": [{"delta": {"role": "assistant"}}]}, None),
        ({"choices": [{"delta": {"reasoning": "hm"}}]}, None),
        ({"choices": [], "usage": {}}, None),
        ({"error": {"message": "no"}, "choices": []}, {"error": {"message": "no"}}),
        ([1], None),
    ],
)
def test_an_event(data: object, event: object) -> None:
    assert seed_event(" " + json.dumps(data)) == event


def test_the_end_mark_and_noise_say_nothing() -> None:
    assert seed_event(" [DONE]\n") is None
    assert seed_event("{broken") is None


@pytest.mark.parametrize(
    ("states", "word", "model"),
    [
        ({}, "idle", None),
        ({"a": State.STOPPED}, "idle", None),
        ({"a": State.STARTING}, "loading", None),
        ({"a": State.READY, "b": State.STARTING}, "ready", "a"),
    ],
)
def test_the_status_in_one_word(states: dict[str, State], word: str, model: str | None) -> None:
    views = tuple(instance_view(name, state) for name, state in states.items())
    models = {ModelId(name): local_model(name) for name in states}
    shown = seed_status(Picture("1", 2.0, None, FleetView(0, views, (), 0, False), models))
    assert (shown["status"], shown["model"], shown["model_loaded"]) == (word, model, word == "ready")


def test_the_model_is_the_one_used_last() -> None:
    views = (
        replace(instance_view("old", State.READY), idle_seconds=50.0),
        replace(instance_view("new", State.READY), idle_seconds=2.0),
    )
    fleet = FleetView(0, views, (), 0, False)
    models = {ModelId(name): local_model(name) for name in ("old", "new")}
    shown = seed_status(Picture("1", 2.0, "d", fleet, models))
    assert shown["model"] == "new"
    assert [one["model"] for one in shown["loaded_models"]] == ["old", "new"]
    # Of a model that the caller's key is not for, nothing is said.
    del models[ModelId("new")]
    shown = seed_status(Picture("1", 2.0, "d", fleet, models))
    assert (shown["model"], shown["available_models"]) == ("old", ["old"])
    assert "new" not in str(shown)


@pytest.mark.parametrize(
    ("listen", "found"),
    [
        ("127.0.0.1:8080", ("http://127.0.0.1:8080", None)),
        ("0.0.0.0:80", ("http://127.0.0.1:80", None)),
        ("[::]:80", ("http://[::1]:80", None)),
        ("10.0.0.7:80", ("http://10.0.0.7:80", None)),
        ("unix:/run/yard", ("http://localhost", "/run/yard")),
    ],
)
def test_the_daemon_finds_its_own_front(listen: str, found: tuple[str, str | None]) -> None:
    assert reached_at(listen) == found


# -- image files


@pytest.fixture
def allowed(tmp_path: Path) -> SeedConfig:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "cat.png").write_bytes(PNG)
    (folder / "notes.txt").write_text("hunter2")
    (tmp_path / "secret.png").write_bytes(PNG)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(folder / "pipe")
    return SeedConfig(local_images=True, image_directories=(folder, tmp_path / "gone"), image_bytes=200)


def test_an_image_below_an_allowed_folder_is_read(allowed: SeedConfig, tmp_path: Path) -> None:
    url = read_image(f"{tmp_path}/pictures/deep/cat.png", allowed)
    assert url == f"data:image/png;base64,{b64(PNG)}"
    assert read_image(f"{tmp_path}/pictures/deep%2Fcat.png", allowed) == url


@pytest.mark.parametrize(
    "name",
    [
        "secret.png",
        "pictures/link.png",
        "pictures/../secret.png",
        "pictures/none.png",
        "pictures/pipe",
        "pictures",
    ],
)
def test_what_is_not_there_and_what_is_not_allowed_are_the_same(
    allowed: SeedConfig, tmp_path: Path, name: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        read_image(f"{tmp_path}/{name}", allowed)
    assert caught.value.refusal.code == "image_not_found"


def test_a_relative_path_is_none(allowed: SeedConfig) -> None:
    with pytest.raises(RefusedError, match="is no file in"):
        read_image("cat.png", allowed)


def test_a_file_that_is_no_image_is_not_passed_on(allowed: SeedConfig, tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        read_image(f"{tmp_path}/pictures/notes.txt", allowed)
    assert caught.value.refusal.code == "not_an_image"
    assert "hunter2" not in caught.value.refusal.message


def test_a_file_that_is_too_large_is_refused(allowed: SeedConfig, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "big.png").write_bytes(PNG + bytes(200))
    with pytest.raises(RefusedError, match=r"seed\.image_bytes"):
        read_image(f"{tmp_path}/pictures/big.png", allowed)


def holder(*, admin: bool) -> KeyHolder:
    """Whoever was let in by a key."""
    key = Key("someone", b"digest", admin=admin)
    entered = Grant(key, Use(), "inner").enter(Need.READ, 0.0)
    assert isinstance(entered, KeyHolder)
    return entered


@pytest.mark.parametrize(
    ("switched_on", "caller", "refused"),
    [
        (True, Caller("127.0.0.1"), False),
        (True, Caller("::1"), False),
        (True, Caller("local"), False),
        (True, Caller("10.0.0.9"), True),
        (True, Caller("10.0.0.9", holder(admin=True)), False),
        (True, Caller("127.0.0.1", holder(admin=False)), True),
        (False, Caller("127.0.0.1"), True),
        (False, Caller("127.0.0.1", holder(admin=True)), True),
    ],
    ids=str,
)
def test_who_may_name_files(switched_on: bool, caller: Caller, refused: bool) -> None:
    settings = SeedConfig(local_images=switched_on)
    if not refused:
        may_name_files(settings, caller)
        return
    with pytest.raises(RefusedError) as caught:
        may_name_files(settings, caller)
    assert (caught.value.refusal.status, caught.value.refusal.code) == (403, "local_images_off")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (WEBP, "image/webp"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x10\x00\x00\x00WAVE", None),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_an_image_is_known_by_its_first_bytes(data: bytes, kind: str | None) -> None:
    assert image_type(data) == kind
