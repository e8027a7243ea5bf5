"""What a model holds is learned by running it once: private, shared by its processes, or a mapped file."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted

pytestmark = pytest.mark.process

MIB = 2**20
BALLAST = 256
WITHIN = 0.05


def learned(folder: Path, *knobs: str) -> int:
    """Bytes that one run with *knobs* teaches."""
    with RunningDaemon(folder, {"models": {"a": scripted(*knobs)}}) as daemon:
        assert daemon.chat("a").status_code == 200
        eventually(lambda: daemon.model("a")["memory"]["measured_bytes"], what="a measurement")
        daemon.stop()
    with closing(sqlite3.connect(folder / "state" / "state.sqlite")) as journal:
        ((peaks,),) = journal.execute("SELECT peak_bytes FROM learned").fetchall()
    found: int = json.loads(peaks)["host"]
    return found


@pytest.mark.parametrize("kind", ["memory", "memfd", "mapped"])
def test_the_footprint_is_learned_within_five_percent(tmp_path: Path, kind: str) -> None:
    bare = learned(tmp_path / "bare", f"--{kind}", "1")
    loaded = learned(tmp_path / "loaded", f"--{kind}", str(BALLAST + 1))
    grown = loaded - bare
    print(f"{kind}: {grown / MIB:.1f} MiB learned for {BALLAST} MiB")
    assert abs(grown - BALLAST * MIB) <= WITHIN * BALLAST * MIB
    assert bare < 60 * MIB  # three bare interpreters: what they share counts once
