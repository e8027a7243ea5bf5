"""`serve`, `engine`, `service`, `doctor` and `config`, where there is a real daemon to be right about."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cli.service_host import this_host
from tests.support.command_line import CommandLine
from tests.support.eventually import eventually
from tests.support.fake_uv import FakeUv
from tests.support.running_daemon import FAKE_ENGINE, ROOT, RunningDaemon, free_port, scripted

pytestmark = pytest.mark.process

SERVER = f"""\
#!{sys.executable} -S
import os, sys
words = sys.argv[1:]
port, model = (words[words.index(name) + 1] for name in ("--port", "--model"))
os.execv(sys.executable, [sys.executable, "-S", {str(FAKE_ENGINE)!r}, "--port", port, "--model", model])
"""
"""mlx_lm.server, played by the scripted engine."""


# -- serve


@pytest.mark.command("serve")
def test_a_second_daemon_of_the_same_state_is_refused_and_names_the_first(
    cli: CommandLine, daemon: RunningDaemon
) -> None:
    config = str(daemon.folder / "modelyard.yaml")
    done = cli.run("serve", "--config", config, "--listen", f"127.0.0.1:{free_port()}")
    assert daemon.process is not None
    assert done.returncode == 75
    assert str(daemon.process.pid) in done.stderr + done.stdout


@pytest.mark.command("serve", "config check", "config show")
@pytest.mark.parametrize("words", ["serve", "config check", "config show"])
def test_a_wrong_configuration_is_78_with_its_line(cli: CommandLine, words: str) -> None:
    file = cli.home / "wrong.yaml"
    file.write_text("listen: 127.0.0.1:0\nttl: soon\n")
    done = cli.run(*words.split(), "--config", str(file))
    assert done.returncode == 78
    assert f"{file}:2: ttl: " in done.stderr


@pytest.mark.command("serve")
def test_ctrl_c_ends_the_daemon_at_a_terminal(cli: CommandLine) -> None:
    file = cli.home / "yard.yaml"
    file.write_text("endpoints: []\ndiscover: {hub_cache: false, demo: false}\n")
    with cli.terminal("serve", "--config", str(file), "--listen", f"127.0.0.1:{free_port()}") as person:
        person.expect("daemon_ready")
        person.interrupt()
        assert person.leave() == 0


# -- engine


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A daemon with a model whose engine nobody has installed."""
    model = {"source": str(ROOT / "demo" / "models" / "yard-demo"), "engine": "mlx-lm"}
    env = {"MODELYARD_ENGINES": str(tmp_path / "engines")}
    with RunningDaemon(tmp_path / "yard", {"models": {"m": model}}, env=env) as running:
        yield running


@pytest.mark.command("engine list", "engine install", "engine upgrade", "engine path", "engine remove")
def test_an_engines_life_as_a_daemon_sees_it(tmp_path: Path, yard: RunningDaemon) -> None:
    uv = FakeUv(tmp_path)
    uv.ships(("mlx-lm", "0.32.2", "mlx_lm"), server=SERVER)
    cli = CommandLine(tmp_path, yard)
    cli.env["PATH"] = f"{tmp_path}:{cli.environment['PATH']}"
    assert "modelyard engine install mlx-lm" in cli.refused("load", "m")
    assert "not installed" in cli.refused("engine", "path", "mlx-lm")
    assert "not installed" in cli.refused("engine", "upgrade", "mlx-lm")
    assert [one["path"] for one in cli.json("engine list")] == [None, None, None]

    (said,) = cli.lines("engine", "install", "mlx-lm")
    assert said.startswith("mlx-lm 0.32.2 installed in ")
    assert cli.lines("engine", "path", "mlx-lm") == [f"{tmp_path}/engines/mlx-lm"]
    assert yard.process is not None
    yard.process.send_signal(signal.SIGHUP)
    eventually(lambda: yard.model("m")["state"] == "stopped", what="the reload to find the engine")
    assert cli.json("load", "m")["engine"] == "mlx-lm"
    assert "served by m" in yard.chat("m").text
    cli.lines("unload", "m")

    installed = cli.json("engine install", "mlx-lm")
    assert (installed["version"], installed["current"]) == ("0.32.2", True)
    assert cli.json("engine path", "mlx-lm") == installed
    assert cli.json("engine upgrade") == [installed]
    (said,) = cli.lines("engine", "upgrade", "mlx-lm")
    assert said == f"mlx-lm 0.32.2 is what is wanted: {tmp_path}/engines/mlx-lm"
    marker = tmp_path / "engines" / "mlx-lm" / "modelyard-engine.json"
    marker.write_text(marker.read_text().replace("0.32.2", "0.31.0"))
    done = cli.run("engine", "list")
    assert "modelyard engine upgrade mlx-lm" in done.stderr
    (said,) = cli.lines("engine", "upgrade")
    assert said.startswith("mlx-lm 0.32.2 installed in ")

    assert cli.json("engine remove", "mlx-lm", "--yes")["path"] is None
    assert "not installed" in cli.refused("engine", "remove", "mlx-lm", "--yes")


@pytest.mark.command("engine remove")
def test_a_removal_asks_and_no_answer_is_no(cli: CommandLine) -> None:
    folder = cli.home / "engines" / "vllm"
    folder.mkdir(parents=True)
    done = cli.run("engine", "remove", "vllm", stdin="n\n")
    assert (done.returncode, folder.exists()) == (130, True)
    assert cli.lines("engine", "remove", "vllm", stdin="y\n") == ["vllm removed"]
    assert not folder.exists()


# -- service


@pytest.mark.command("service install")
def test_the_files_of_the_service_are_shown_and_name_this_program(cli: CommandLine) -> None:
    text = "\n".join(cli.lines("service", "install", "--user", "--print"))
    assert "Type=notify" in text or "<plist" in text
    files = cli.json("service install --print", "--user")
    assert all(one["text"] in f"{text}\n" for one in files)
    assert any("serve" in one["text"] for one in files)


@pytest.mark.command("service install", "service uninstall", "service status")
@pytest.mark.skipif(this_host().kind is not None, reason="a service manager runs here: it is left alone")
@pytest.mark.parametrize("verb", ["install", "uninstall", "status"])
def test_without_a_service_manager_it_says_what_to_do_instead(cli: CommandLine, verb: str) -> None:
    assert "let what does run `modelyard serve`" in cli.refused("service", verb, "--user")


# -- doctor


@pytest.mark.command("doctor")
def test_the_doctor_finds_the_running_daemon_and_what_is_wrong(
    cli: CommandLine, daemon: RunningDaemon
) -> None:
    file = cli.home / "yard.yaml"
    settings = {"listen": f"127.0.0.1:{daemon.port}", "discover": {"hub_cache": False, "demo": False}}
    file.write_text(yaml.safe_dump({**settings, "models": {"a": scripted()}}))
    found = cli.json("doctor", "--config", str(file))
    assert found["healthy"]
    assert daemon.process is not None
    (port,) = [one for one in found["findings"] if one["check"] == "port"]
    assert f"(pid {daemon.process.pid})" in port["what"]
    file.write_text(yaml.safe_dump({**settings, "models": {"a": {"cmd": ["no-such-program", "{port}"]}}}))
    sick = cli.json("doctor", "--config", str(file), status=1)
    assert "no-such-program" in next(one["what"] for one in sick["findings"] if one["level"] == "fail")
    done = cli.run("doctor", "--config", str(file))
    assert done.returncode == 1
    assert "to mend" in done.stderr
    with cli.terminal("doctor", "--config", str(file), columns=80) as person:
        person.expect("no-such-program")
        assert person.leave() == 1
        assert "\x1b[1;31mfail" in person.raw


# -- config


@pytest.mark.command("config check", "config show", "config schema")
def test_the_configuration_of_a_running_daemon_is_checked_and_shown(
    cli: CommandLine, daemon: RunningDaemon
) -> None:
    file = str(daemon.folder / "modelyard.yaml")
    (said,) = cli.lines("config", "check", "--config", file)
    assert said.startswith(f"fine: {file}; 5 models named")
    checked = cli.json("config check", "--config", file)
    assert (checked["valid"], checked["file"]) == (True, file)
    assert checked["models"] == sorted(one["id"] for one in daemon.status()["models"])
    shown = cli.json("config show", "--config", file)
    assert shown["settings"]["state_dir"] == str(daemon.folder / "state")
    assert shown["sources"]["state_dir"].startswith(f"{file}:")
    assert shown["sources"]["ttl"] == "default"
    text = "\n".join(cli.lines("config", "show", "--config", file))
    assert yaml.safe_load(text)["default_model"] == "yard"
    assert cli.lines("config", "schema")[0] == "{"


@pytest.mark.command("config check")
def test_problems_for_programs(cli: CommandLine) -> None:
    file = cli.home / "wrong.yaml"
    file.write_text("lisen: 1\nttl: soon\n")
    found = cli.json("config check", "--config", str(file), status=78)
    assert not found["valid"]
    assert [(one["line"], one["key"]) for one in found["problems"]] == [(1, "lisen"), (2, "ttl")]


@pytest.mark.command("config show")
def test_sources_are_dimmed_at_a_terminal(cli: CommandLine) -> None:
    with cli.terminal("config", "show", columns=80) as person:
        person.expect("listen: 127.0.0.1:8080")
        assert person.leave() == 0
        assert "\x1b[2m# default" in person.raw
