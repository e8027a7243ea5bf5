"""The list of models without a daemon: what one would serve on this machine with this configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cli import terminal
from config.load import find_config, load_settings
from config.places import engines_dir
from registry.catalog import build_catalog, openai_entry
from registry.describe import dossier
from registry.discovery import Environment
from registry.machine import read_machine


def local_listing(*, whole: bool = False) -> dict[str, Any]:
    """The shape of GET /v1/models, without the models of running endpoints. Raises ConfigError.

    With *whole* each model as GET /v1/models/{id} has it.
    """
    settings = load_settings(find_config(None, os.environ, Path.cwd()), os.environ).settings
    where = Environment(os.environ, engines_dir(os.environ), demo_dir=demo_models())
    catalog = build_catalog(settings, read_machine(), where)
    for notice in catalog.notices:
        terminal.note(f"{notice.model}: {notice.what}")
    states = {True: "stopped", False: "unusable"}
    data = [
        {**openai_entry(model, states[model.problem is None]), **(dossier(model) if whole else {})}
        for model in catalog.models.values()
    ]
    return {"object": "list", "data": data}


def demo_models() -> Path | None:
    """The demo models, which only a source checkout has."""
    folder = Path(__file__).resolve().parent.parent / "demo" / "models"
    return folder if folder.is_dir() else None
