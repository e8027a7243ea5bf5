"""Ring 4: the examples of docs/howto/client.md, run as they stand against a real daemon."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import modelyard
from tests.support.running_daemon import ROOT, RunningDaemon, scripted

PAGE = (Path(modelyard.__file__).parent.parent / "docs" / "howto" / "client.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CURLS = re.findall(r"^\$ (curl .*)$", PAGE, re.MULTILINE)
DOCUMENTED = "http://127.0.0.1:8080"

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("documented")
    with RunningDaemon(folder, {"models": {"yard-demo": scripted()}}) as running:
        yield running


def test_there_are_examples_of_every_kind() -> None:
    assert len(PROGRAMS) >= 4
    assert {re.sub(r".*/api/v1/(\S+) .*|.*/api/v1/(\S+)$", r"\1\2", curl) for curl in CURLS} == {
        "inference/load",
        "inference/status",
        "inference/generate",
        "chat/completions",
        "inference/unload",
    }


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda text: text.splitlines()[0])
def test_the_programs_run(daemon: RunningDaemon, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace(DOCUMENTED, daemon.url)],
        capture_output=True,
        text=True,
        cwd=daemon.folder,
        env={**daemon.environment, "PYTHONPATH": str(ROOT), "MODELYARD_URL": daemon.url},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "served by" in done.stdout or "model_not_found 404" in done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", CURLS)
def test_the_commands_run(daemon: RunningDaemon, command: str) -> None:
    argv = [word.replace(DOCUMENTED, daemon.url) for word in shlex.split(command)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if "-sN" in argv:
        found = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("data: ")]
        assert all(set(event) == {"text", "finish_reason"} for event in found)
        assert found[-1]["finish_reason"] == "stop"
    else:
        assert "error" not in json.loads(done.stdout)
