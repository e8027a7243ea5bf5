"""The command line itself: what every command shares."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import modelyard
from cli.errors import CliError
from cli.main import COMMANDS, run

CHECKOUT = Path(modelyard.__file__).parent.parent


def test_version_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"modelyard {modelyard.__version__}\n"


@pytest.mark.parametrize("wish", ["-h", "--help"])
def test_help_lists_every_command(wish: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([wish]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "-h"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: modelyard {name} ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sevre"], "No such command 'sevre'"),
        (["ps", "--nonsense"], "No such option"),
        (["load"], "Missing argument 'MODEL'"),
        (["logs", "m", "-n", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage_is_status_2_and_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_wrong_configuration_is_status_78_and_a_line_per_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("lisen: 1\nttl: soon\n")
    assert run(["config", "check", "--config", str(file)]) == 78
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {file}:1: lisen: ")
    assert second.startswith(f"error: {file}:2: ttl: ")


def test_a_good_configuration_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "good.yaml"
    file.write_text("listen: 127.0.0.1:9000\n")
    assert run(["config", "check", "--config", str(file)]) == 0
    assert f"fine: {file}" in capsys.readouterr().out


def test_no_traceback_without_debug_and_one_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ps", "--url", "http://"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert run(["--debug", "ps", "--url", "http://"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("m exited 1:\n  CUDA out of memory", "m exited 1: CUDA out of memory"),
        ("it failed\n\nits log has more\n", "it failed; its log has more"),
    ],
)
def test_a_message_of_several_lines_becomes_one(message: str, line: str) -> None:
    assert str(CliError(message)) == line


def modelyard_process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), **environment}
    return subprocess.run(
        [sys.executable, "-m", "modelyard", *words],
        capture_output=True,
        text=True,
        env=env,
        timeout=30,
        check=False,
    )


@pytest.mark.process
def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m modelyard config schema | true; exit ${{PIPESTATUS[0]}}"
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=env, timeout=30, check=False
    )
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # 0 when everything was written before the reader left


@pytest.mark.process
def test_completion_for_bash_lists_the_commands() -> None:
    done = modelyard_process(_MODELYARD_COMPLETE="bash_complete", COMP_WORDS="modelyard lo", COMP_CWORD="1")
    assert [line.split(",")[1] for line in done.stdout.splitlines()] == ["load", "logs"]


@pytest.mark.process
def test_help_needs_neither_the_daemon_nor_its_libraries() -> None:
    heavy = {"aiohttp", "httpx", "rich", "pydantic", "uvloop"}
    program = f"import sys; import cli.main as m; m.run(['-h']); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=CHECKOUT, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
