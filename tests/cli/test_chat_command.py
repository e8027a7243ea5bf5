"""`modelyard chat`: one question, a piped one, and a conversation at a terminal."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import modelyard
from cli.main import run
from tests.support.daemon_stub import DaemonStub, Hold, Reply, Stream, words
from tests.support.pseudo_terminal import PseudoTerminal

CHECKOUT = Path(modelyard.__file__).parent.parent
CHAT = "POST /v1/chat/completions"
MODELS = {
    "data": [{"id": "yard-demo", "capabilities": ["generate"]}, {"id": "vectors", "capabilities": ["embed"]}]
}


def daemon(*answers: Reply | Stream, models: Any = MODELS) -> DaemonStub:
    status = Reply({"models": []})
    return DaemonStub({CHAT: answers, "GET /v1/models": Reply(models), "GET /api/status": status})


def questions(stub: DaemonStub) -> list[Any]:
    return [asked.body for asked in stub.asked if asked.path == "/v1/chat/completions"]


def test_one_question_prints_the_answer_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(Stream([": loading yard-demo 42%", "", *words("A ", "router.")])) as stub:
        assert run(["chat", "yard-demo", "--system", "brief", "--once", "What?", "--url", stub.url]) == 0
        (asked,) = questions(stub)
    assert capsys.readouterr() == ("A router.\n", "")
    assert asked["messages"] == [{"role": "system", "content": "brief"}, {"role": "user", "content": "What?"}]


def test_text_on_standard_input_is_the_question(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("line one\nline two\n"))
    with daemon(Stream(words("ok"))) as stub:
        assert run(["chat", "yard-demo", "--url", stub.url]) == 0
        (asked,) = questions(stub)
    assert asked["messages"] == [{"role": "user", "content": "line one\nline two"}]
    assert capsys.readouterr().out == "ok\n"


def test_an_empty_pipe_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with daemon() as stub:
        assert run(["chat", "yard-demo", "--url", stub.url]) == 2
        assert questions(stub) == []


def test_the_only_model_that_can_chat_is_the_default() -> None:
    with daemon(Stream(words("ok"))) as stub:
        assert run(["chat", "--once", "x", "--url", stub.url]) == 0
        assert questions(stub)[0]["model"] == "yard-demo"


def test_the_daemons_default_model_wins() -> None:
    routes: dict[str, Reply | Stream] = {
        CHAT: Stream(words("ok")),
        "GET /api/status": Reply({"default_model": "big", "models": []}),
    }
    with DaemonStub(routes) as stub:
        assert run(["chat", "--once", "x", "--url", stub.url]) == 0
        assert questions(stub)[0]["model"] == "big"


def test_among_several_models_one_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(models={"data": [{"id": "a"}, {"id": "b"}, {"id": "c", "problem": "broken"}]}) as stub:
        assert run(["chat", "--once", "x", "--url", stub.url]) == 2
    assert "one of: a, b\n" in capsys.readouterr().err


def test_a_refusal_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    refused = Reply({"error": {"message": "no model is called x", "code": "model_not_found"}}, 404)
    with daemon(refused) as stub:
        assert run(["chat", "x", "--once", "hi", "--url", stub.url]) == 1
    assert capsys.readouterr() == ("", "error: no model is called x\n")


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ([], "it ended without the mark"),
        (['data: {"error": {"message": "the engine died"}}', ""], "the engine died"),
    ],
)
def test_an_answer_that_breaks_off_is_shown_and_is_a_failure(
    ending: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemon(Stream([*words("half", done=False), *ending])) as stub:
        assert run(["chat", "yard-demo", "--once", "x", "--url", stub.url]) == 1
    out, err = capsys.readouterr()
    assert out == "half\n"
    assert message in err


def test_reasoning_stays_out_of_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    thought = json.dumps({"choices": [{"delta": {"reasoning": "hmm"}}]})
    with daemon(Stream([f"data: {thought}", "", *words("yes")])) as stub:
        assert run(["chat", "yard-demo", "--once", "x", "--url", stub.url]) == 0
    assert capsys.readouterr().out == "yes\n"


def terminal(stub: DaemonStub, *arguments: str) -> PseudoTerminal:
    argv = [sys.executable, "-m", "modelyard", "chat", *arguments, "--url", stub.url]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return PseudoTerminal(argv, cwd=str(Path.cwd()), env=env)


@pytest.mark.process
def test_a_conversation_remembers_and_ctrl_d_leaves() -> None:
    with daemon(Stream(words("One.")), Stream(words("Two."))) as stub, terminal(stub, "yard-demo") as person:
        person.expect(">>> ")
        person.type("first\n")
        person.expect("One.")
        person.expect(">>> ")
        person.type("second\n")
        person.expect("Two.")
        person.expect(">>> ")
        person.type("\x04")
        assert person.leave() == 0
        assert [message["content"] for message in questions(stub)[1]["messages"]] == [
            "first",
            "One.",
            "second",
        ]


@pytest.mark.process
def test_ctrl_c_stops_the_answer_and_not_the_program() -> None:
    with (
        daemon(Stream([*words("forever", done=False), Hold()])) as stub,
        terminal(stub, "yard-demo") as person,
    ):
        person.expect(">>> ")
        person.type("go on\n")
        person.expect("forever")
        person.interrupt()
        person.expect("(stopped)")
        assert stub.client_left.wait(10), "the daemon was left working for nobody"
        person.expect(">>> ")
        person.type("/bye\n")
        assert person.leave() == 0


@pytest.mark.process
def test_a_model_that_loads_is_seen_loading() -> None:
    with daemon(Stream([": loading yard-demo 42% eta 3s", "", Hold()])) as stub, terminal(stub) as person:
        person.expect(">>> ")
        person.type("hello\n")
        person.expect("loading yard-demo 42% eta 3s")


@pytest.mark.process
def test_an_error_in_a_conversation_does_not_end_it() -> None:
    refused = Reply({"error": {"message": "queue full", "code": "queue_full"}}, 503)
    with daemon(refused, Stream(words("Now."))) as stub, terminal(stub, "yard-demo") as person:
        person.expect(">>> ")
        person.type("first\n")
        person.expect("error: queue full")
        person.expect(">>> ")
        person.type("again\n")
        person.expect("Now.")
        person.expect(">>> ")
        person.type("\x04")
        assert person.leave() == 0
        assert [message["content"] for message in questions(stub)[1]["messages"]] == ["again"]


@pytest.mark.process
def test_the_commands_of_a_conversation(tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    with daemon(Stream(words("Yes."))) as stub, terminal(stub, "yard-demo") as person:
        for typed, seen in [
            ("/help", "/save FILE"),
            ("/models", "* yard-demo"),
            ("/system be kind", "be kind"),
            ("/model other", "not in the list"),
            ("/model yard-demo", "yard-demo"),
            ('"""two\nlines"""', "Yes."),
            (f"/save {saved}", "3 messages in"),
            ("/save /nowhere/at/all", "was not written"),
            ("/clear", "(forgotten)"),
            ("/dance", "none of the commands"),
        ]:
            person.expect(">>> ")
            person.type(f"{typed}\n")
            person.expect(seen)
        person.expect(">>> ")
        person.type("/bye\n")
        assert person.leave() == 0
    messages = json.loads(saved.read_text())["messages"]
    assert [message["content"] for message in messages] == ["be kind", "two\nlines", "Yes."]
