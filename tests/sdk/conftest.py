"""A daemon whose models speak every protocol, for as long as a file of tests takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.running_daemon import ROOT, RunningDaemon

COLD: Final = float(os.environ.get("MODELYARD_COLD_SECONDS", "6"))
"""Seconds that a cold start takes."""
READ_TIMEOUT: Final = max(2.5, COLD / 6)
"""Seconds that a client waits in silence: much shorter. 30 and 5 are what people have."""
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
        **{f"cold{n}": speaking("--ready-after", str(COLD)) for n in range(6)},
    }
    with RunningDaemon(Path(tmp_path_factory.mktemp("sdk")), {"models": models}) as running:
        yield running


@pytest.fixture
def read_timeout() -> float:
    """Much shorter than a cold start."""
    return READ_TIMEOUT


@pytest.fixture(scope="module")
def spacious(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """The same with white space before JSON."""
    models = {f"cold{n}": speaking("--ready-after", str(COLD)) for n in range(2)}
    settings = {"models": models, "loading_json": "space"}
    with RunningDaemon(Path(tmp_path_factory.mktemp("spacious")), settings) as running:
        yield running
