"""`modelyard chat` as a person has it: keys typed, the screen of a terminal looked at, a real daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.command_line import PROGRAM, CommandLine
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted
from tests.support.tmux import Tmux, needs_tmux

pytestmark = [pytest.mark.process, needs_tmux]

MODELS = {
    "blind": scripted("--chunks", "3", "--echo-headers", capabilities=["generate"]),
    "eyes": scripted("--chunks", "3", capabilities=["generate", "vision"]),
    "long": scripted("--chunks", "30", capabilities=["generate"]),
    "talker": scripted("--chunks", "3000", "--chunk-interval", "0.05"),
    "slow": scripted("--chunks", "3", "--ready-after", "3"),
}
READY = "/help lists what can be typed; Ctrl-D leaves"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One with models for every kind of talk."""
    with RunningDaemon(tmp_path_factory.mktemp("daemon"), {"models": MODELS}) as running:
        yield running


def chat(cli: CommandLine, model: str, *, columns: int = 80) -> Tmux:
    return Tmux([*PROGRAM, "chat", model], cwd=cli.home, env=cli.environment, columns=columns)


def asked(daemon: RunningDaemon, model: str) -> list[dict[str, Any]]:
    """The messages of the last request that reached *model*'s engine."""
    stats = httpx.get(f"http://127.0.0.1:{daemon.model(model)['port']}/_stats").json()
    messages: list[dict[str, Any]] = stats["last"]["body"]["messages"]
    return messages


@pytest.mark.command("chat")
def test_a_talk_has_a_memory_commands_and_an_end(cli: CommandLine, daemon: RunningDaemon) -> None:
    with chat(cli, "blind") as person:
        person.shows(f"blind at {daemon.url}", READY, ">>>")
        person.type("/system be kind")
        person.shows("be kind", ">>>")
        person.type("first")
        person.shows(">>> first", "served by blind", ">>>")
        person.type("second")
        person.shows(">>> second", "served by blind", ">>>")
        assert [(one["role"], one["content"]) for one in asked(daemon, "blind")] == [
            ("system", "be kind"),
            ("user", "first"),
            ("assistant", "served by blind"),
            ("user", "second"),
        ]
        person.press("Up")
        person.shows(">>> second")
        person.press("C-c")
        person.shows("(Ctrl-D leaves)", ">>>")
        person.type("/save talk.json")
        person.shows("5 messages in talk.json", ">>>")
        person.press("C-d")
        assert person.left_with() == 0
    assert len(json.loads((cli.home / "talk.json").read_text())["messages"]) == 5


@pytest.mark.command("chat")
def test_ctrl_c_stops_the_answer_at_the_engine_and_the_talk_goes_on(
    cli: CommandLine, daemon: RunningDaemon
) -> None:
    with chat(cli, "talker") as person:
        person.shows(READY, ">>>")
        person.type("go on")
        eventually(lambda: " w20" in "\n".join(person.screen()), within=20)
        person.press("C-c")
        person.shows("(stopped)", ">>>")
        eventually(lambda: daemon.model("talker")["in_flight"] == 0)
        person.type("/model blind")
        person.shows("blind", ">>>")
        person.type("and you?")
        person.shows(">>> and you?", "served by blind", ">>>")
        question, answer, _ = asked(daemon, "blind")
        assert question["content"] == "go on"
        assert answer["content"].startswith("served by talker"), "what came of the answer is kept"
        person.type("/bye")
        assert person.left_with() == 0


@pytest.mark.command("chat")
def test_pictures_are_for_models_that_see(cli: CommandLine, daemon: RunningDaemon) -> None:
    (cli.home / "a cat.png").write_bytes(PNG)
    with chat(cli, "blind") as person:
        person.type("/image 'a cat.png'")
        person.shows("error: blind does not see pictures; these do: eyes", ">>>")
        person.type("/model eyes")
        person.type("/image a\\ cat.png")
        person.shows("(1 picture will go with the next question)", ">>>")
        person.type("/image no.png")
        person.shows("error: no.png cannot be read: No such file or directory", ">>>")
        person.type("what is it?")
        person.shows(">>> what is it?", "served by eyes", ">>>")
        picture, text = asked(daemon, "eyes")[0]["content"]
        assert picture["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")
        assert text == {"type": "text", "text": "what is it?"}
        person.press("C-d")
        assert person.left_with() == 0


@pytest.mark.command("chat")
def test_a_model_that_loads_is_seen_loading_and_the_line_goes_away(
    cli: CommandLine, daemon: RunningDaemon
) -> None:
    with chat(cli, "slow", columns=50) as person:
        person.type("hello")
        eventually(lambda: "loading slow" in "\n".join(person.screen()), within=20)
        person.shows(">>> hello", "served by slow", ">>>")
        assert "loading" not in "\n".join(person.screen())
        person.press("C-d")
        assert person.left_with() == 0


@pytest.mark.command("chat")
@pytest.mark.parametrize("columns", [80, 50])
def test_nothing_is_broken_inside_a_word(cli: CommandLine, daemon: RunningDaemon, columns: int) -> None:
    with chat(cli, "long", columns=columns) as person:
        person.shows(READY, ">>>")
        person.type("hello")
        eventually(lambda: person.screen()[-1] == ">>>" and "w24" in person.screen()[-2], within=20)
        lines = person.screen()
        answer = lines[lines.index(">>> hello") + 1 : -1]
        assert all(len(line) < columns for line in answer)
        words = " ".join(answer).split()
        assert words[:3] == ["served", "by", "long"]
        assert words[5:] == [f"w{number}" for number in range(25)]
        assert len(answer) > 1
        person.type("/help")
        person.shows("Ctrl-C        stops an answer", ">>>")
        assert all(line[:1] in '/>C" ' for line in person.screen()[-12:])
        person.press("C-d")
        assert person.left_with() == 0
