"""A footprint is what a tree really holds: shared pages once, whoever maps them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from config.schema import MemoryConfig
from registry.engine import HOST, Footprint
from registry.model import Model
from supervisor.forecast import LEARNED_MARGIN, Forecast
from supervisor.memory import HostMemory
from tests.support.fakes import FakeWorld, make_model
from tests.support.trees import Yard, command_spec, in_yard

pytestmark = pytest.mark.process

MIB = 2**20
EACH = 64
"""MiB of anonymous memory, of a memfd that three processes share, and of a mapped file."""
BALLAST = Path(__file__).parents[1] / "support" / "ballast.py"


async def footprint(yard: Yard, file: Path, mib: int) -> int:
    """Bytes measured of a tree with *mib* of each."""
    recorder, child = await yard.launch(command_spec((sys.executable, str(BALLAST), str(mib), str(file))))
    await yard.said(child, "up")
    memory = HostMemory(MemoryConfig())
    memory.watch(child.record)
    memory.measure()
    found = memory.of_tree(child.record)[HOST]
    memory.close()
    child.kill()
    await yard.ended(recorder)
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memfd and PSS are Linux's")
def test_a_learned_footprint_is_within_five_percent_after_one_run(folder: Path, tmp_path: Path) -> None:
    async def story(yard: Yard) -> None:
        empty = await footprint(yard, tmp_path / "none", 0)
        measured = await footprint(yard, tmp_path / "weights", EACH)
        held = 3 * EACH * MIB
        print(f"held {held} bytes, measured {measured - empty} more than without")
        assert abs(measured - empty - held) <= 0.05 * held
        world = FakeWorld()
        model: Model = make_model("a", size=2 * measured)
        assert model.spec is not None
        assert model.footprint == Footprint({HOST: 2 * measured})
        world.learn(model.spec.fingerprint, peak_bytes={HOST: measured})
        assert Forecast(world, [HOST]).need(model) == {HOST: int(measured * LEARNED_MARGIN)}

    in_yard(folder, story)
