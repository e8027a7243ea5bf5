"""`modelyard engine` without an installation and with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.engines import ADAPTERS, runs_on
from cli.main import run
from config.vocabulary import EngineName
from registry.engine import DeviceId, Machine
from registry.installed import MARKER

LINUX = Machine("linux", "x86_64", 2**34)
NVIDIA = Machine("linux", "x86_64", 2**34, ((DeviceId("gpu0"), 2**36),))
MAC = Machine("darwin", "arm64", 2**35)
INTEL_MAC = Machine("darwin", "x86_64", 2**34)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MODELYARD_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


def put(folder: Path) -> None:
    (folder / "bin").mkdir(parents=True)
    server = folder / "bin" / "mlx_lm.server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    (folder / "lib" / "python3.11" / "site-packages" / "mlx_lm-0.32.2.dist-info").mkdir(parents=True)
    marker = {
        "engine": "mlx-lm",
        "version": "0.32.2",
        "requirements": [],
        "installed_at": "2026-01-01T00:00:00+00:00",
    }
    (folder / MARKER).write_text(json.dumps(marker))


def test_list_says_how_to_install_when_there_is_none(
    engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["engine", "list"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["ENGINE", *ADAPTERS]
    assert "modelyard engine install " in err


def test_list_shows_version_and_place(engines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(engines / "mlx-lm")
    assert run(["engine", "list", "--json"]) == 0
    found = {one["engine"]: one for one in json.loads(capsys.readouterr().out)}
    assert (found["mlx-lm"]["version"], found["mlx-lm"]["path"]) == ("0.32.2", str(engines / "mlx-lm"))
    assert found["vllm"]["path"] is None
    assert found["vllm"]["requirements"]


def test_a_folder_that_the_configuration_names_needs_no_marker(
    engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "mine")
    (tmp_path / "mine" / MARKER).unlink()
    file = tmp_path / "modelyard.yaml"
    file.write_text(f"engines: {{mlx-lm: {{path: {tmp_path / 'mine'}}}}}\n")
    monkeypatch.setenv("MODELYARD_CONFIG", str(file))
    assert run(["engine", "list", "--json"]) == 0
    found = {one["engine"]: one for one in json.loads(capsys.readouterr().out)}
    assert (found["mlx-lm"]["version"], found["mlx-lm"]["path"]) == ("0.32.2", str(tmp_path / "mine"))


def test_path_is_for_scripts(engines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["engine", "path", "mlx-lm"]) == 1
    assert capsys.readouterr() == ("", "error: mlx-lm is not installed: modelyard engine install mlx-lm\n")
    put(engines / "mlx-lm")
    assert run(["engine", "path", "mlx-lm"]) == 0
    assert capsys.readouterr().out == f"{engines / 'mlx-lm'}\n"


def test_install_leaves_what_is_there_and_says_when_it_is_old(
    engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(engines / "mlx-lm")
    assert run(["engine", "install", "mlx-lm"]) == 0
    out, err = capsys.readouterr()
    assert out == f"mlx-lm 0.32.2 is installed: {engines / 'mlx-lm'}\n"
    assert "`modelyard engine upgrade mlx-lm` replaces it" in err


def test_remove_takes_it_away_and_then_has_nothing_to_do(engines: Path) -> None:
    put(engines / "mlx-lm")
    assert run(["engine", "remove", "mlx-lm", "--yes"]) == 0
    assert not (engines / "mlx-lm").exists()
    assert run(["engine", "remove", "mlx-lm", "--yes"]) == 1


def test_an_engine_that_is_none_is_wrong_usage(engines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["engine", "install", "ollama"]) == 2
    assert "mlx-lm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("engine", "machine", "answer"),
    [
        (EngineName.VLLM, LINUX, "yes: CPU build"),
        (EngineName.VLLM, NVIDIA, "yes: 1 NVIDIA"),
        (EngineName.VLLM, MAC, "no: "),
        (EngineName.VLLM_MLX, MAC, "yes: Metal"),
        (EngineName.VLLM_MLX, LINUX, "yes: on the CPU, text only"),
        (EngineName.MLX_LM, NVIDIA, "yes: CUDA"),
        (EngineName.MLX_LM, INTEL_MAC, "no: MLX needs Apple silicon"),
    ],
)
def test_what_runs_where(engine: EngineName, machine: Machine, answer: str) -> None:
    assert runs_on(engine, machine).startswith(answer)
