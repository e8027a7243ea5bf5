"""`ps`, `models`, `load`, `unload`, `pin`, `unpin`, `status` and `logs` against a real daemon."""

from __future__ import annotations

import json
import re
import signal

import httpx
import pytest

from tests.support.command_line import CommandLine, check_output
from tests.support.eventually import eventually
from tests.support.running_daemon import ROOT, RunningDaemon, free_port

pytestmark = pytest.mark.process


@pytest.mark.command("load", "ps", "unload")
def test_a_model_is_loaded_shown_and_unloaded(cli: CommandLine, daemon: RunningDaemon) -> None:
    (said,) = cli.lines("load", "yard")
    pid, port = re.fullmatch(r"yard: ready, pid (\d+), port (\d+)", said).groups()  # type: ignore[union-attr]
    assert daemon.model("yard")["pid"] == int(pid)
    heading, row = cli.lines("ps")
    assert heading.split()[:5] == ["MODEL", "STATE", "ENGINE", "PID", "PORT"]
    assert row.split()[:5] == ["yard", "ready", "command", pid, port]
    assert cli.lines("unload", "yard") == ["yard: stopped"]
    done = cli.run("ps")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing runs" in done.stderr


@pytest.mark.command("load", "ps", "unload")
def test_and_the_same_for_programs(cli: CommandLine) -> None:
    loaded = cli.json("load", "first")
    assert (loaded["id"], loaded["state"]) == ("yard", "ready")
    (shown,) = cli.json("ps")
    assert (shown["id"], shown["pid"]) == ("yard", loaded["pid"])
    assert {one["id"] for one in cli.json("ps", "--all")} == {"yard", "eyes", "slow", "bad", "talker"}
    stopped = cli.json("unload", "yard", "--force")
    assert (stopped["state"], stopped["pid"]) == ("stopped", None)
    assert cli.json("ps") == []


@pytest.mark.command("load")
def test_a_load_that_fails_has_status_1_and_the_engines_own_words(cli: CommandLine) -> None:
    assert "CUDA out of memory" in cli.refused("load", "bad")
    (failed,) = [one for one in cli.json("ps") if one["id"] == "bad"]
    assert failed["state"] == "backoff"
    assert "CUDA out of memory" in failed["last_error"]["cause"]
    assert "CUDA out of memory" in next(line for line in cli.lines("ps") if line.startswith("bad"))
    assert cli.json("unload", "bad")["state"] == "stopped"


@pytest.mark.command("load", "unload", "pin", "unpin", "logs", "models show")
@pytest.mark.parametrize("words", ["load", "unload", "pin", "unpin", "logs", "models show"])
def test_an_unknown_model_is_a_failure_that_names_it(cli: CommandLine, words: str) -> None:
    assert "'nobody'" in cli.refused(*words.split(), "nobody")


@pytest.mark.command("load")
def test_ctrl_c_ends_the_wait_and_not_the_start(cli: CommandLine, daemon: RunningDaemon) -> None:
    with cli.terminal("load", "slow") as person:
        person.expect("loading slow")
        eventually(lambda: daemon.model("slow")["state"] == "starting")
        person.interrupt()
        assert person.leave() == 130
    assert daemon.model("slow")["state"] == "starting"
    eventually(lambda: daemon.model("slow")["state"] == "ready", within=20)
    cli.lines("unload", "slow")


@pytest.mark.command("models", "models show")
def test_models_are_listed_and_shown(cli: CommandLine) -> None:
    heading, *rows = cli.lines("models")
    assert heading.split()[:3] == ["MODEL", "STATE", "ENGINE"]
    assert [row.split()[0] for row in rows] == [one["id"] for one in cli.json("models")["data"]]
    entry = cli.json("models show", "first")
    assert (entry["id"], entry["aliases"]) == ("yard", ["first"])
    shown = dict(line.split(maxsplit=1) for line in cli.lines("models", "first"))
    assert shown["id"] == "yard"
    assert cli.json("models show", "eyes")["capabilities"] == ["generate", "vision"]


@pytest.mark.command("models inspect")
def test_a_folder_a_server_and_a_mere_name_are_inspected(cli: CommandLine, daemon: RunningDaemon) -> None:
    folder = cli.json("models inspect", str(ROOT / "demo" / "models" / "yard-demo"))
    assert (folder["kind"], folder["engines"]["mlx-lm"]) == ("directory", None)
    assert "runs here" in "\n".join(cli.lines("models", "inspect", folder["path"]))
    loaded = cli.json("load", "yard")
    served = cli.json("models inspect", f"http://127.0.0.1:{loaded['port']}")
    assert [one["subject"] for one in served["models"]] == ["yard"]
    assert cli.json("models inspect", "Qwen/Qwen3-8B")["parameters"]["value"] == 8_000_000_000
    cli.refused("models", "inspect", f"http://127.0.0.1:{free_port()}", status=69)
    cli.lines("unload", "yard")


@pytest.mark.command("explain")
def test_why_a_request_waited_is_explained(cli: CommandLine, daemon: RunningDaemon) -> None:
    request = daemon.chat("slow").headers["x-request-id"]
    found = cli.json("explain", request)
    assert (found["model"], found["outcome"]) == ("slow", "served")
    assert found["waited_seconds"] > 2
    first, *steps = cli.lines("explain", request)
    assert first.startswith(f"{request} asked for slow at ")
    assert len(steps) == len(found["steps"]) > 0
    assert "has waited lately" in cli.refused("explain", "nobody")
    cli.lines("unload", "slow")


@pytest.mark.command("models")
def test_without_a_daemon_the_models_of_this_machine_are_listed(cli: CommandLine) -> None:
    (cli.home / "modelyard.yaml").write_text(
        "discover: {hub_cache: false, demo: false}\nmodels: {mine: {cmd: 'x {port}'}}\n"
    )
    cli.daemon = None
    cli.env["MODELYARD_URL"] = f"http://127.0.0.1:{free_port()}"
    done = cli.run("models")
    assert done.returncode == 0
    assert "no daemon answers" in done.stderr
    assert done.stdout.splitlines()[1].split()[0] == "mine"
    assert [one["id"] for one in cli.json("models")["data"]] == ["mine"]


@pytest.mark.command("pin", "unpin")
def test_a_pin_is_set_shown_and_taken_back(cli: CommandLine, daemon: RunningDaemon) -> None:
    assert cli.lines("pin", "yard") == ["yard: stopped, pinned"]
    assert daemon.model("yard")["pinned"]
    assert cli.json("pin", "yard")["pinned"]
    assert cli.lines("unpin", "yard") == ["yard: stopped"]
    assert not cli.json("unpin", "yard")["pinned"]


@pytest.mark.command("status")
def test_status_sums_up_and_tells_programs_everything(cli: CommandLine, daemon: RunningDaemon) -> None:
    first, *rest = cli.lines("status")
    assert daemon.process is not None
    assert f"at {daemon.url}, pid {daemon.process.pid}, up " in first
    assert any(line.startswith("5 models, ") for line in rest)
    found = cli.json("status")
    assert found["pid"] == daemon.process.pid
    assert found["default_model"] == "yard"
    assert [one["id"] for one in found["models"]] == ["bad", "eyes", "slow", "talker", "yard"]


@pytest.mark.command("status")
def test_a_watched_status_is_a_line_per_change_in_a_pipe(cli: CommandLine) -> None:
    with cli.start("status", "--watch") as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("modelyard ")
        cli.lines("load", "yard")
        assert any(re.match(r"\d\d:\d\d:\d\d  yard  ready", line) for line in watching.stdout)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130
    cli.lines("unload", "yard")


@pytest.mark.command("status")
def test_a_watched_status_for_programs_is_a_status_per_line(cli: CommandLine) -> None:
    with cli.start("status", "--watch", "--json") as watching:
        assert watching.stdout is not None
        check_output("status", json.loads(watching.stdout.readline()))
        cli.lines("pin", "yard")
        for line in watching.stdout:
            changed = json.loads(line)
            check_output("status", changed)
            if next(one["pinned"] for one in changed["models"] if one["id"] == "yard"):
                break
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130
    cli.lines("unpin", "yard")


@pytest.mark.command("status")
def test_a_watched_status_moves_in_place_at_a_terminal(cli: CommandLine, daemon: RunningDaemon) -> None:
    with cli.terminal("status", "--watch", columns=100) as person:
        person.expect("Ctrl-C leaves")
        httpx.post(f"{daemon.url}/api/models/yard/load", timeout=30)
        person.expect("yard")
        person.expect("ready")
        person.interrupt()
        assert person.leave() == 130
        assert "\x1b[?1049h" in person.raw, "it did not take a screen of its own"
        assert person.raw.rindex("\x1b[?1049l") > person.raw.rindex("\x1b[?1049h"), "it kept the screen"
    cli.lines("unload", "yard")


@pytest.mark.command("logs")
def test_the_end_of_a_log(cli: CommandLine) -> None:
    cli.lines("load", "yard")
    eventually(lambda: len(cli.lines("logs", "yard", "-n", "2")) == 2)
    found = cli.json("logs", "yard", "-n", "1")
    assert found["model"] == "yard"
    assert len(found["lines"]) == 1
    cli.lines("unload", "yard")


@pytest.mark.command("logs")
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_followed_log_goes_on_until_ctrl_c(cli: CommandLine, as_json: bool) -> None:
    cli.lines("load", "yard")
    with cli.start("logs", "yard", "-f", *(["--json"] if as_json else [])) as following:
        assert following.stdout is not None
        lines = [following.stdout.readline() for _ in range(5)]
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 130
    assert all(lines)
    for line in lines if as_json else ():
        check_output("logs --follow", json.loads(line))
    cli.lines("unload", "yard")


@pytest.mark.command("ps", "models", "status")
@pytest.mark.parametrize("words", [["ps"], ["models"], ["status"]], ids=" ".join)
def test_colour_is_for_terminals(cli: CommandLine, words: list[str]) -> None:
    cli.lines("load", "yard")
    assert "\x1b" not in cli.run(*words).stdout
    with cli.terminal(*words) as person:
        person.expect("yard")
        assert person.leave() == 0
        assert "\x1b[32mready" in person.raw
    cli.lines("unload", "yard")


@pytest.mark.command("ps", "load", "unload", "pin", "unpin", "status", "logs", "chat", "generate", "explain")
@pytest.mark.parametrize(
    "words",
    ["ps", "load yard", "unload yard", "pin yard", "unpin yard", "status", "status --watch", "logs yard",
     "logs yard -f", "chat yard --once hi", "generate yard hi", "explain x"],
)  # fmt: skip
def test_where_no_daemon_answers_the_status_is_69(cli: CommandLine, words: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    said = cli.refused(*words.split(), "--url", nobody, status=69)
    assert f"no daemon answers at {nobody}" in said
    assert "modelyard serve" in said
