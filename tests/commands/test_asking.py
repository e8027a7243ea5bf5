"""`chat`, `generate`, `version` and `completion` against a real daemon."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

import modelyard
from tests.support.command_line import PROGRAM, CommandLine
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon

pytestmark = pytest.mark.process

PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)


def last_request(daemon: RunningDaemon, model: str) -> dict[str, Any]:
    """The body of the last request that reached the engine of *model*."""
    stats = httpx.get(f"http://127.0.0.1:{daemon.model(model)['port']}/_stats").json()
    body: dict[str, Any] = stats["last"]["body"]
    return body


# -- generate


@pytest.mark.command("generate")
def test_a_prompt_is_answered_as_text_and_for_programs(cli: CommandLine) -> None:
    (answer,) = cli.lines("generate", "yard", "hello", "--max-tokens", "3")
    assert answer == "served by yard"
    found = cli.json("generate", "yard", "hello", "--max-tokens", "3")
    assert (found["model"], found["text"], found["finish_reason"]) == ("yard", "served by yard", "stop")
    assert found["usage"]["completion_tokens"] == 3


@pytest.mark.command("generate")
def test_what_is_piped_in_follows_the_prompt(cli: CommandLine, daemon: RunningDaemon) -> None:
    cli.lines("generate", "eyes", "Summarise:", "--system", "be brief", stdin="a diff\n")
    assert last_request(daemon, "eyes")["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "Summarise:\n\na diff"},
    ]
    cli.lines("generate", "eyes", "Once upon", "--raw", "--temperature", "0")
    body = last_request(daemon, "eyes")
    assert (body["prompt"], body["temperature"]) == ("Once upon", 0.0)


@pytest.mark.command("generate")
def test_a_picture_goes_to_a_model_that_sees_and_to_no_other(cli: CommandLine, daemon: RunningDaemon) -> None:
    picture = cli.home / "cat.png"
    picture.write_bytes(PNG)
    cli.lines("generate", "eyes", "what is it?", "--image", str(picture))
    (message,) = last_request(daemon, "eyes")["messages"]
    assert message["content"][0]["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")
    assert "does not see pictures; these do: eyes" in cli.refused(
        "generate", "talker", "what?", "--image", str(picture)
    )


@pytest.mark.command("generate")
@pytest.mark.parametrize(
    "words", [["yard"], ["yard", "x", "--raw", "--system", "s"], ["yard", "x", "--max-tokens", "0"]]
)
def test_a_wrong_way_to_ask_is_wrong_usage(cli: CommandLine, words: list[str]) -> None:
    cli.refused("generate", *words, status=2)


@pytest.mark.command("generate")
def test_ctrl_c_stops_the_answer_at_the_engine_too(cli: CommandLine, daemon: RunningDaemon) -> None:
    with cli.start("generate", "talker", "go on") as talking:
        assert talking.stdout is not None
        assert talking.stdout.read(9) == "served by"
        talking.send_signal(signal.SIGINT)
        assert talking.wait(10) == 130
    eventually(lambda: daemon.model("talker")["in_flight"] == 0)


# -- chat


@pytest.mark.command("chat")
def test_one_question_and_one_from_a_pipe(cli: CommandLine, daemon: RunningDaemon) -> None:
    (answer,) = cli.lines("chat", "--once", "hello")
    assert answer.startswith("served by yard"), "without MODEL it is the default one"
    (answer,) = cli.lines("chat", "eyes", "--system", "be kind", stdin="piped\n")
    assert answer.startswith("served by eyes")
    assert last_request(daemon, "eyes")["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "piped"},
    ]
    cli.refused("chat", status=2)
    assert "'nobody'" in cli.refused("chat", "nobody", "--once", "hello")


# -- version, completion


@pytest.mark.command("version")
def test_the_version_of_command_and_daemon(cli: CommandLine, daemon: RunningDaemon) -> None:
    first, second = cli.lines("version")
    assert first.startswith(f"modelyard {modelyard.__version__} (Python ")
    assert daemon.process is not None
    assert second.split() == [
        *("daemon", modelyard.__version__, "at", f"{daemon.url},"),
        *("pid", str(daemon.process.pid)),
    ]
    assert cli.json("version")["daemon"]["pid"] == daemon.process.pid
    cli.env["MODELYARD_URL"] = "http://127.0.0.1:1"
    assert cli.json("version")["daemon"] is None


def completed_by_bash(cli: CommandLine, line: str) -> list[str]:
    """What bash offers when Tab is pressed at the end of *line*."""
    folder = cli.home / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "modelyard"
    program.write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    script = f"""
        eval "$(modelyard completion bash)"
        complete -p modelyard >/dev/null || exit 3
        COMP_WORDS=({line}); COMP_CWORD=$(({len(line.split())} - 1))
        {'COMP_WORDS+=(""); COMP_CWORD=$((COMP_CWORD + 1))' if line.endswith(" ") else ""}
        _modelyard_completion modelyard
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{folder}:{Path(sys.executable).parent}:{cli.environment['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        env={**cli.environment, "PATH": path},
        cwd=cli.home,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.command("completion")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("modelyard lo", ["load", "logs"]),
        ("modelyard load ", ["bad", "eyes", "slow", "talker", "yard"]),
        ("modelyard logs ey", ["eyes"]),
        ("modelyard models y", ["yard"]),
        ("modelyard engine up", ["upgrade"]),
        ("modelyard engine install vllm", ["vllm-mlx", "vllm"]),
        ("modelyard ps --j", ["--json"]),
    ],
)
def test_bash_completes_commands_options_and_models(cli: CommandLine, line: str, offered: list[str]) -> None:
    assert sorted(completed_by_bash(cli, line)) == sorted(offered)


@pytest.mark.command("completion")
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_too(cli: CommandLine, shell: str) -> None:
    assert "_MODELYARD_COMPLETE" in "\n".join(cli.lines("completion", shell))
    cli.refused("completion", "tcsh", status=2)


def test_json_is_one_document_that_any_program_reads(cli: CommandLine) -> None:
    done = cli.run("generate", "yard", "héllo", "--json")
    assert json.loads(done.stdout.encode("utf-8").decode("utf-8"))["model"] == "yard"
    assert done.stderr == ""
