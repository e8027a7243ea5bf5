"""Inspecting: what is known of a name, a folder or a file, whether the model is there or not.

Reads files and nothing else: no daemon, no engine, no network. Nothing raises for what it finds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.places import expand
from config.schema import ModelConfig
from config.vocabulary import EngineName
from registry.checkpoint import Checkpoint
from registry.checkpoint_reader import read_checkpoint
from registry.describe import described, display_name, supported_parameters, tags
from registry.engine import Machine, ModelId
from registry.engine_choice import ENGINES
from registry.evidence import settle_facts
from registry.gguf import read_gguf
from registry.hub import hub_cache, repository
from registry.model import Facts, Model, SourceKind
from registry.names import FamilyTable, parse_name
from registry.probe import ServedModel


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found out."""

    subject: str
    """What was asked for."""
    kind: str
    """`name`, `directory`, `file`, `hub-cache` or `server`."""
    facts: Facts
    path: Path | None = None
    problem: str | None = None
    """Why it cannot be served as it is."""
    checkpoint: Checkpoint | None = None

    @property
    def is_present(self) -> bool:
        """There are files, or a server answers for it."""
        return self.path is not None or self.kind == "server"


def inspect(
    subject: str,
    *,
    env: Mapping[str, str],
    families: FamilyTable,
    entries: Mapping[str, ModelConfig] | None = None,
) -> Inspection:
    """What is known of *subject*: a folder or file where there is one, else an id or alias, else a name."""
    path = _existing(subject, env)
    if path is not None and path.name == "config.json":
        path = path.parent
    if path is not None:
        return _of_path(subject, "directory" if path.is_dir() else "file", path, families=families)
    options = _entry(subject, entries or {})
    source = (options.source if options else None) or subject
    configured = Path(source) if source.startswith("/") else None
    if configured is not None and configured.exists():
        return _of_path(subject, "directory", configured, families=families, options=options)
    found = repository(hub_cache(env), source) if _is_hub_id(source) else None
    if found is not None:
        return _of_path(subject, "hub-cache", found.path, families=families, options=options, name=source)
    return Inspection(subject, "name", settle_facts(subject, parse_name(source, families), options=options))


def inspect_served(served: ServedModel, *, families: FamilyTable) -> Inspection:
    """What is known of a model that a running server lists."""
    name = parse_name(served.id, families)
    if name.capabilities is None and served.root is not None:
        name = parse_name(served.root, families)
    return Inspection(served.id, "server", settle_facts(served.id, name, served=served))


def report(found: Inspection, machine: Machine) -> dict[str, Any]:
    """An inspection as JSON: the facts by name, then what it was and what follows."""
    return {
        **described(found.facts),
        "subject": found.subject,
        "kind": found.kind,
        "present": found.is_present,
        "path": None if found.path is None else str(found.path),
        "problem": found.problem,
        "display_name": display_name(found.subject),
        "tags": tags(found.facts),
        "supported_parameters": supported_parameters(found.facts),
        "engines": _engines(found, machine),
    }


def _engines(found: Inspection, machine: Machine) -> dict[str, str | None]:
    """Per engine, why it cannot serve it on this machine; None: it can. Empty without a checkpoint."""
    if found.checkpoint is None or found.path is None:
        return {}
    model = Model(
        id=ModelId("model"),
        engine=EngineName.COMMAND,
        source=found.subject,
        source_kind=SourceKind.DIRECTORY,
        path=found.path,
        facts=found.facts,
        checkpoint=found.checkpoint,
    )
    kinds = (EngineName.VLLM, EngineName.VLLM_MLX, EngineName.MLX_LM)
    return {kind.value: found.problem or ENGINES[kind].refuses(model, machine) for kind in kinds}


def _of_path(
    subject: str,
    kind: str,
    path: Path,
    *,
    families: FamilyTable,
    options: ModelConfig | None = None,
    name: str | None = None,
) -> Inspection:
    if path.is_dir():
        checkpoint = read_checkpoint(path)
    elif path.suffix == ".gguf":
        checkpoint = read_gguf(path)
    else:
        facts = settle_facts(subject, parse_name(str(path), families), options=options)
        problem = f"{path.name} is no checkpoint: name its folder, or a .gguf file"
        return Inspection(subject, kind, facts, path, problem)
    facts = settle_facts(
        subject,
        parse_name(name or str(path), families),
        checkpoint=checkpoint,
        options=options,
        families=families,
    )
    return Inspection(subject, kind, facts, path, checkpoint.problem, checkpoint)


_LOOKS_LIKE_A_PATH = ("/", "./", "../", "~")


def _existing(subject: str, env: Mapping[str, str]) -> Path | None:
    """The folder or file of that name; of a name that looks like a hub id only if it holds a model."""
    try:
        path = expand(subject, env)
        if subject.startswith(_LOOKS_LIKE_A_PATH) or subject in (".", ".."):
            return path.resolve() if path.exists() else None
        is_model = path.is_file() if path.suffix == ".gguf" else (path / "config.json").is_file()
        return path.resolve() if is_model else None
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, a loop of links: no path at all
        return None


_HUB_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)


def _is_hub_id(text: str) -> bool:
    return _HUB_ID.fullmatch(text) is not None


def _entry(name: str, entries: Mapping[str, ModelConfig]) -> ModelConfig | None:
    if name in entries:
        return entries[name]
    return next((options for options in entries.values() if name in options.aliases), None)
