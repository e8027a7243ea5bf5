"""Ring 4 for the command line: every command against a real daemon with scripted engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.running_daemon import RunningDaemon, scripted

MODELS = {
    "yard": scripted("--chatter", "0.2", aliases=["first"]),
    "eyes": scripted("--echo-headers", capabilities=["generate", "vision"]),
    "slow": scripted("--ready-after", "4"),
    "bad": scripted("--exit-at-start", "--stderr-line", "RuntimeError: CUDA out of memory"),
    "talker": scripted("--chunks", "2000", "--chunk-interval", "0.05", capabilities=["generate"]),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon that every test of a module shares."""
    folder = tmp_path_factory.mktemp("daemon")
    with RunningDaemon(folder, {"models": MODELS, "default_model": "yard"}) as running:
        yield running


@pytest.fixture
def cli(daemon: RunningDaemon, tmp_path: Path) -> CommandLine:
    """The command line of a person who has nothing but the daemon's address."""
    return CommandLine(tmp_path, daemon)
