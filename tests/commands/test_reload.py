"""`config plan` and `config apply` against a real daemon; under load in tests/daemon/test_reload.py."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml

from tests.support.command_line import CommandLine
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted

pytestmark = pytest.mark.process


def edit(daemon: RunningDaemon, **changes: dict[str, object] | None) -> None:
    """Change entries of models in the daemon's file; None takes one out."""
    file = daemon.folder / "modelyard.yaml"
    written = yaml.safe_load(file.read_text())
    for model, entry in changes.items():
        written["models"].pop(model, None)
        if entry is not None:
            written["models"][model] = entry
    file.write_text(yaml.safe_dump(written))


@pytest.mark.command("config plan", "config apply")
def test_a_changed_configuration_is_planned_and_applied(tmp_path: Path) -> None:
    models = {"a": scripted(), "b": scripted(), "c": scripted()}
    with RunningDaemon(tmp_path / "daemon", {"models": models}) as daemon:
        cli = CommandLine(tmp_path, daemon)
        for model in "ab":
            assert daemon.chat(model).status_code == 200
        pids = {model: daemon.model(model)["pid"] for model in "ab"}
        assert cli.lines("config", "plan", "--exit-code") == ["nothing to do: 3 models stay as they are"]

        edit(daemon, a=scripted("--chatter", "9"), b=scripted(ttl="1h"), c=None, d=scripted())
        said = "\n".join(cli.lines("config", "plan", "--exit-code", status=3))
        assert "drained, then started anew; put back if it does not become ready" in said
        planned = cli.json("config plan")
        actions = {one["model"]: (one["action"], one["changed"]) for one in planned["models"]}
        assert actions == {
            "a": ("restart", ["cmd"]),
            "b": ("update", ["ttl"]),
            "c": ("remove", []),
            "d": ("add", []),
        }
        assert {model: daemon.model(model)["pid"] for model in "ab"} == pids, "a plan changes nothing"

        applied = cli.json("config apply")
        outcomes = {one["model"]: one["outcome"] for one in applied["models"]}
        assert applied["complete"]
        assert outcomes == {"a": "restarted", "b": "updated", "c": "removed", "d": "added"}
        assert daemon.model("a")["pid"] != pids["a"]
        assert daemon.model("b")["pid"] == pids["b"]
        assert daemon.model("b")["ttl_seconds"] == 3600
        assert daemon.chat("d").status_code == 200


@pytest.mark.command("config plan", "config apply")
def test_flags_that_break_a_model_are_taken_back_and_the_cause_is_said(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path / "daemon", {"models": {"a": scripted()}}) as daemon:
        cli = CommandLine(tmp_path, daemon)
        cli.json("load", "a")
        edit(daemon, a=scripted("--exit-at-start", "--stderr-line", "error: unrecognized arguments: --frob"))
        done = cli.run("config", "apply")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "error: a keeps its old definition" in done.stderr
        assert "unrecognized arguments: --frob" in done.stderr
        assert done.stdout.splitlines()[0] == "a: rolled back (cmd)"
        assert daemon.chat("a").status_code == 200
        assert "a keeps its old definition" in "\n".join(cli.lines("status"))
        (back,) = daemon.status()["configuration"]["rolled_back"]
        assert (back["model"], back["changed"]) == ("a", ["cmd"])
        assert "model_rolled_back" in [event["kind"] for event in daemon.status()["recent_events"]]

        starts = daemon.model("a")["starts"]
        assert daemon.process is not None
        applied = daemon.status()["configuration"]["applied_at"]
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: daemon.status()["configuration"]["applied_at"] > applied, what="the reload")
        assert daemon.model("a")["starts"] == starts, "a signal does not try again what has failed"

        edit(daemon, a=scripted("--chatter", "9"))
        assert cli.json("config apply")["complete"]
        assert daemon.status()["configuration"]["rolled_back"] == []


@pytest.mark.command("config apply")
def test_what_can_never_fit_stops_nothing_and_holds_up_nothing_else(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path / "daemon", {"models": {"a": scripted()}}) as daemon:
        cli = CommandLine(tmp_path, daemon)
        pid = cli.json("load", "a")["pid"]
        edit(daemon, a=scripted("--chatter", "9", memory="900TiB"), d=scripted())
        done = cli.run("config", "apply")
        assert done.returncode == 1
        assert "a keeps its old definition: a needs 921600.0 GiB on host" in done.stderr
        assert daemon.model("a")["pid"] == pid
        assert daemon.chat("a").status_code == 200
        assert daemon.chat("d").status_code == 200


@pytest.mark.command("config plan", "config apply")
def test_a_file_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path / "daemon", {"models": {"a": scripted()}}) as daemon:
        cli = CommandLine(tmp_path, daemon)
        file = daemon.folder / "modelyard.yaml"
        good = file.read_text()
        file.write_text(f"{good}ttl: soon\n")
        line = good.count("\n") + 1
        for words in ("plan", "apply"):
            assert f"{file}:{line}: ttl: " in cli.refused("config", words, status=78)
            assert f"{file}:{line}: ttl: " in cli.refused("config", words, str(file), status=78)
        assert f"{file}:{line}: ttl: " in daemon.status()["configuration"]["error"]
        assert daemon.chat("a").status_code == 200
        file.write_text(good)
        cli.lines("config", "apply", str(file))
        assert daemon.status()["configuration"]["error"] == ""


@pytest.mark.command("config plan", "config apply")
def test_a_draft_is_planned_with_and_only_the_daemons_own_file_applied(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path / "daemon", {"models": {"a": scripted()}}) as daemon:
        cli = CommandLine(tmp_path, daemon)
        draft = tmp_path / "draft.yaml"
        draft.write_text((daemon.folder / "modelyard.yaml").read_text() + "limits: {keep_alive: 7s}\n")
        found = cli.json("config plan", "draft.yaml")
        assert (found["file"], found["left_for_restart"]) == (str(draft), ["limits"])
        assert f"the daemon reads {daemon.folder}/modelyard.yaml" in cli.refused(
            "config", "apply", "draft.yaml"
        )
        assert cli.lines("config", "plan") == ["nothing to do: 1 model stays as it is"]
