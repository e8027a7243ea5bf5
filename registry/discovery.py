"""Finds the models of this machine: the operator's entries, model folders, the demo, the hub's cache.

Reads files; may take a second for hundreds of models, so it is called from a thread. Nothing raises: a model
that is broken is listed with its problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from config.schema import ModelConfig, Settings
from registry.checkpoint import Checkpoint
from registry.checkpoint_reader import CheckpointMemory
from registry.families import load_families
from registry.gguf import read_gguf
from registry.hub import Found, RepositoryMemory, hub_cache, repository, scan_directory, scan_hub_cache
from registry.model import SourceKind
from registry.model_memory import ModelMemory
from registry.names import FamilyTable


@dataclass(frozen=True, slots=True)
class Environment:
    """Where to look, besides what the settings say."""

    env: Mapping[str, str]
    """Environment variables: they say where the hub's cache is."""
    engines_dir: Path
    """Where engines are installed: `config.places.engines_dir`."""
    demo_dir: Path | None = None
    """`demo/models` of a source checkout; None in an installed daemon."""
    families: FamilyTable = field(default_factory=load_families)
    """What names mean; read once."""
    memory: CheckpointMemory = field(default_factory=CheckpointMemory)
    """Kept between scans, as the next two."""
    repositories: RepositoryMemory = field(default_factory=RepositoryMemory)
    models: ModelMemory = field(default_factory=ModelMemory)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that was found or configured, before anything is decided about it."""

    id: str
    source: str
    kind: SourceKind
    path: Path | None = None
    """Its folder; for a command also a single file."""
    checkpoint: Checkpoint | None = None
    options: ModelConfig | None = None
    also: tuple[str, ...] = ()
    """Further names that find it: the id it would have had without an entry of its own."""
    created: int = 0
    problem: str | None = None
    adapters: tuple[tuple[str, Path], ...] = ()
    """LoRA adapters that were found and were trained on it: name and folder."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the operator should know about what was found; not an error."""

    model: str
    what: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """Everything that was found, each id once."""

    candidates: tuple[Candidate, ...]
    notices: tuple[Notice, ...]


def discover(settings: Settings, environment: Environment) -> Discovery:
    """All models, each id once: entries first, then folders, then the demo, then the hub's cache."""
    cache = hub_cache(environment.env)
    found = list(_found(settings, environment, cache))
    by_id: dict[str, Found] = {}
    for one, _ in found:
        by_id.setdefault(one.id, one)
    configured = [
        _configured(name, options, cache=cache, by_id=by_id, memory=environment.memory)
        for name, options in settings.models.items()
    ]
    chosen = {candidate.id: candidate for candidate in _with_found_names(configured, found)}
    notices = _add_found(chosen, found, environment.memory)
    environment.memory.keep_only({c.path for c in chosen.values() if c.path is not None})
    return Discovery(tuple(chosen.values()), tuple(notices))


def _with_found_names(configured: list[Candidate], found: list[tuple[Found, SourceKind]]) -> list[Candidate]:
    """An entry for something that was found replaces it, and is known by its name too.

    Of several entries for one folder the first gets the name.
    """
    names = {one.path: one.id for one, _ in found}
    entries = {candidate.id for candidate in configured}
    result = []
    for candidate in configured:
        name = names.pop(candidate.path, None) if candidate.path is not None else None
        is_new = name is not None and name not in entries
        result.append(replace(candidate, also=(name,)) if name is not None and is_new else candidate)
    return result


def _add_found(
    chosen: dict[str, Candidate], found: list[tuple[Found, SourceKind]], memory: CheckpointMemory
) -> list[Notice]:
    """Add what was found to *chosen*, and say what was left out."""
    notices, adapters = [], []
    taken = {candidate.path for candidate in chosen.values()}
    for one, kind in found:
        if one.path in taken:
            continue
        checkpoint = memory.read(one.path)
        winner = chosen.get(one.id)
        if checkpoint.is_adapter:
            adapters.append((one, checkpoint))
        elif not _is_model(checkpoint):
            notices.append(Notice(one.id, f"{one.path}: {checkpoint.problem}"))
        elif winner is not None:
            notices.append(Notice(one.id, f"{one.path} is hidden by {winner.path or winner.source}"))
        else:
            chosen[one.id] = Candidate(
                id=one.id,
                source=one.id if kind is SourceKind.HUB_CACHE else str(one.path),
                kind=kind,
                path=one.path,
                checkpoint=checkpoint,
                created=one.modified,
                problem=_problem(checkpoint, one),
            )
    return notices + _attach(chosen, adapters)


def _attach(chosen: dict[str, Candidate], adapters: list[tuple[Found, Checkpoint]]) -> list[Notice]:
    """Give each of *adapters* to the models that it was trained on, and say which have none here."""
    notices = []
    for found, checkpoint in adapters:
        bases = [one for one in chosen.values() if checkpoint.base_model in (one.id, one.source, *one.also)]
        name = found.id.rpartition("/")[2]
        for base in bases:
            chosen[base.id] = replace(base, adapters=(*base.adapters, (name, found.path)))
        if not bases:
            notices.append(Notice(found.id, f"{found.path}: {checkpoint.problem}"))
    return notices


def _found(settings: Settings, environment: Environment, cache: Path) -> Iterator[tuple[Found, SourceKind]]:
    for directory in settings.discover.directories:
        yield from ((one, SourceKind.DIRECTORY) for one in scan_directory(directory))
    if settings.discover.demo and environment.demo_dir is not None:
        yield from ((one, SourceKind.DIRECTORY) for one in scan_directory(environment.demo_dir))
    if settings.discover.hub_cache:
        yield from ((one, SourceKind.HUB_CACHE) for one in scan_hub_cache(cache, environment.repositories))


def _configured(
    name: str,
    options: ModelConfig,
    *,
    cache: Path,
    by_id: Mapping[str, Found],
    memory: CheckpointMemory,
) -> Candidate:
    if options.source is None and options.cmd is not None:
        command = options.cmd if isinstance(options.cmd, str) else " ".join(options.cmd)
        return Candidate(name, command, SourceKind.CONFIG, options=options)
    source = options.source or name
    if source.startswith("/"):
        return _at_path(name, options, Path(source), memory.read)
    found = by_id.get(source) or repository(cache, source)
    if found is None:
        is_guess = options.source is None and "/" not in name
        problem = f"no model called {name} was found: give it a source (hub id or directory) or a cmd"
        return Candidate(
            name, source, SourceKind.CONFIG, options=options, problem=problem if is_guess else None
        )
    checkpoint = memory.read(found.path)
    return Candidate(
        name,
        source,
        SourceKind.CONFIG,
        path=found.path,
        checkpoint=checkpoint,
        options=options,
        created=found.modified,
        problem=_problem(checkpoint, found) if options.cmd is None else None,
    )


def _at_path(name: str, options: ModelConfig, path: Path, read: Callable[[Path], Checkpoint]) -> Candidate:
    source = str(path)
    try:
        found = path.stat()
    except OSError as error:
        why = f"{path} cannot be read: {error.strerror or error}"
        return Candidate(name, source, SourceKind.CONFIG, options=options, problem=why)
    problem: str | None
    if path.is_dir():
        checkpoint = read(path)
        problem = checkpoint.problem if options.cmd is None else None
    else:
        # One file, for a command: llama-server and the like take a path to it.
        is_gguf = path.suffix == ".gguf"
        plain = Checkpoint(size_bytes=found.st_size, weight_format=path.suffix.lstrip(".") or None)
        checkpoint = read_gguf(path) if is_gguf else plain
        problem = None if options.cmd is not None else f"{path} is a file; a source is a folder or a hub id"
    return Candidate(
        name,
        source,
        SourceKind.CONFIG,
        path=path,
        checkpoint=checkpoint,
        options=options,
        created=int(found.st_mtime),
        problem=problem,
    )


def _is_model(checkpoint: Checkpoint) -> bool:
    """False for what is no model at all, however complete: adapters, image pipelines."""
    return not (checkpoint.problem or "").startswith(("a LoRA adapter", "a diffusers pipeline"))


def _problem(checkpoint: Checkpoint, found: Found) -> str | None:
    problem = checkpoint.problem
    if problem is not None and found.unfinished:
        return f"{problem}; a download is under way or was broken off"
    return problem
