"""What a daemon in a terminal says first: every line can be pasted as it stands."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import click
import pytest

from cli.main import modelyard as command_line
from registry.catalog import Catalog
from registry.engine import ModelId
from registry.errors import ModelUnusableError
from registry.model import Model
from registry.resolve import build_index
from router.welcome import this_command, welcome
from tests.support.control import local_model


def catalog(*models: Model, default: str | None = None) -> Catalog:
    found = {model.id: model for model in models}
    return Catalog(found, build_index(found, {}), None if default is None else ModelId(default))


def chat_line(text: str) -> list[str]:
    (line,) = re.findall(r"^  (.* chat .*)$", text, re.MULTILINE)
    return shlex.split(line)


def test_the_request_and_the_command_name_the_default_model() -> None:
    text = welcome(catalog(local_model("a"), local_model("b"), default="b"), "127.0.0.1:8080", "1.2")
    (body,) = re.findall(r"-d '(.*)'$", text, re.MULTILINE)
    assert json.loads(body)["model"] == "b"
    assert chat_line(text)[1:] == ["chat", "b"]
    assert "modelyard 1.2 is ready on http://127.0.0.1:8080 (2 models)" in text


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8081", "http://127.0.0.1:8081"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        ("[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_another_address_is_in_every_line(listen: str, url: str) -> None:
    text = welcome(catalog(local_model("a")), listen, "1")
    words = chat_line(text)
    assert words[1:] == ["chat", "a", "--url", url]
    assert f"{url}/v1/chat/completions" in text
    assert f"{url}/status" in text
    chat = command_line.get_command(click.Context(command_line), "chat")
    assert chat is not None
    assert chat.make_context("chat", words[2:]).params["url"] == url


def test_with_keys_on_the_lines_have_a_place_for_one() -> None:
    text = welcome(catalog(local_model("a")), "127.0.0.1:8080", "1", keys=True)
    assert "-H 'Authorization: Bearer KEY'" in text
    assert chat_line(text)[0] == "MODELYARD_API_KEY=KEY"


def test_without_a_usable_model_it_says_why() -> None:
    broken = local_model("a", problem=ModelUnusableError("partial download"))
    text = welcome(catalog(broken), "127.0.0.1:8080", "1")
    assert "no model can be served yet" in text
    assert "a: partial download" in text
    assert " chat " not in text


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    script = folder / "modelyard"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return script


def test_a_command_that_path_does_not_find_is_shown_with_its_path(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert this_command() == ".venv/bin/modelyard"
    monkeypatch.chdir("/")
    assert this_command() == str(script)


def test_one_that_path_finds_goes_by_its_name(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(script.parent))
    assert this_command() == "modelyard"


def test_another_installation_on_the_path_is_not_taken_for_this_one(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "modelyard"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(other.parent))
    monkeypatch.chdir(script.parent)
    assert this_command() == "./modelyard"
