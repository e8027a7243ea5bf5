"""Models and catalogs for tests, made from facts alone: no file is read and no engine looked for."""

from __future__ import annotations

from typing import Any

from config.schema import ModelConfig, Settings
from registry.capability import Capability
from registry.catalog import Catalog, build_catalog
from registry.discovery import Environment
from registry.engine import Machine
from registry.footprint import GIB
from tests.support.running_daemon import ROOT

CPU = Machine("linux", "x86_64", 24 * GIB)


def command(*can: str, **more: Any) -> dict[str, Any]:
    """An entry of a model that a command serves and that can *can*."""
    capabilities = [Capability(word) for word in can]
    return {"cmd": "serve {port}", **({"capabilities": capabilities} if can else {}), **more}


def catalog_of(models: dict[str, dict[str, Any]], **settings: Any) -> Catalog:
    """The catalog of these entries and of nothing else."""
    entries = {name: ModelConfig(**entry) for name, entry in models.items()}
    nothing_found = {"discover": {"hub_cache": False, "demo": False}, "endpoints": ()}
    said = Settings.model_validate({**nothing_found, **settings, "models": entries})
    return build_catalog(said, CPU, Environment({}, ROOT / "no-engines"))
