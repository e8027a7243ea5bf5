"""What every test of the command line has: no configuration, no environment of the person who runs it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _nobodys_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MODELYARD_URL", "MODELYARD_CONFIG", "MODELYARD_ENGINES", "VLLM_MLX_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.chdir(home)
