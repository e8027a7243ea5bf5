"""The extras of pyproject.toml: an engine each, pinned as its adapter is, and never two together."""

from __future__ import annotations

import tomllib
from itertools import combinations
from pathlib import Path

import pytest

import modelyard
from registry.engine import DeviceId, Machine
from registry.engine_choice import ENGINES
from registry.installed import EXECUTABLES

PYPROJECT = tomllib.loads((Path(modelyard.__file__).parent.parent / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
MACHINES = {
    "darwin": Machine("darwin", "arm64", 2**35),
    "linux": Machine("linux", "x86_64", 2**35),
}
WITH_GPU = Machine("linux", "x86_64", 2**35, ((DeviceId("gpu0"), 2**36),))


def wanted(extra: str, system: str) -> set[str]:
    """The requirements of *extra* on *system*."""
    pairs = [requirement.partition("; sys_platform == ") for requirement in EXTRAS[extra]]
    return {what for what, _, where in pairs if where in ("", f"'{system}'")}


def test_every_engine_that_can_be_installed_is_an_extra() -> None:
    assert set(EXTRAS) == {name.value for name in EXECUTABLES}


@pytest.mark.parametrize("system", MACHINES)
@pytest.mark.parametrize("extra", ["mlx-lm", "vllm-mlx"])
def test_an_extra_brings_what_its_adapter_installs(extra: str, system: str) -> None:
    recipe = next(engine for name, engine in ENGINES.items() if name.value == extra).recipe(MACHINES[system])
    # torch comes by itself: it is only chosen by the recipe, from an index that an extra cannot name.
    assert wanted(extra, system) == {one for one in recipe.requirements if not one.startswith("torch==")}


def test_the_extra_of_vllm_is_its_build_for_gpus() -> None:
    recipe = next(engine for name, engine in ENGINES.items() if name.value == "vllm").recipe(WITH_GPU)
    assert wanted("vllm", "linux") == set(recipe.requirements)
    assert wanted("vllm", "darwin") == set()


def test_no_two_of_them_are_resolved_into_one_environment() -> None:
    declared = [{one["extra"] for one in group} for group in PYPROJECT["tool"]["uv"]["conflicts"]]
    for pair in combinations(EXTRAS, 2):
        assert any(set(pair) <= group for group in declared), pair
