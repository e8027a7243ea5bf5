"""A daemon whose models speak every protocol, for as long as a file of tests takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running_daemon import ROOT, RunningDaemon

ENGINE = ROOT / "tests" / "support" / "speaking_engine.py"


def speaking(*knobs: str) -> dict[str, object]:
    """A model of the engine that speaks every protocol."""
    capabilities = ["generate", "tool_use", "embed"]
    cmd = [sys.executable, "-S", str(ENGINE), "--port", "{port}", *knobs]
    return {"cmd": cmd, "capabilities": capabilities}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    models = {
        "m": {**speaking(), "preload": True},
        **{f"cold{n}": speaking("--ready-after", "6") for n in range(6)},
    }
    with RunningDaemon(Path(tmp_path_factory.mktemp("sdk")), {"models": models}) as running:
        yield running


@pytest.fixture(scope="module")
def spacious(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """The same with white space before JSON."""
    settings = {"models": {"cold": speaking("--ready-after", "6")}, "loading_json": "space"}
    with RunningDaemon(Path(tmp_path_factory.mktemp("spacious")), settings) as running:
        yield running
