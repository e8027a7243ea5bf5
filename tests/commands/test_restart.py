"""`restart` against a real daemon; what it does under load is in tests/daemon/test_handover.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted

pytestmark = pytest.mark.process


@pytest.mark.command("restart")
def test_a_new_process_takes_over_and_the_models_stay(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path / "daemon", {"models": {"a": scripted()}}) as daemon:
        cli = CommandLine(tmp_path, daemon)
        engine = cli.json("load", "a")["pid"]
        first = daemon.status()["pid"]
        restarted = cli.json("restart")
        assert restarted["was"] == first != restarted["pid"]
        eventually(lambda: daemon.status()["pid"] == restarted["pid"])
        assert daemon.model("a")["pid"] == engine
        (said,) = cli.lines("restart")
        assert f"process {restarted['pid']} goes when its last answer has ended" in said
        assert daemon.model("a")["pid"] == engine
        (tmp_path / "daemon" / "modelyard.yaml").write_text("models: 7\n")
        assert "before it was prepared" in cli.refused("restart")
        assert daemon.chat("a").status_code == 200
