"""Checkpoints on this machine: the Hugging Face cache, read offline, and folders of models.

Only names are listed here; `registry.checkpoint_reader` looks into them. Nothing raises: what cannot be read
is not there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from config.places import expand, home

MAX_MODELS = 10_000
"""Folders looked at per place: more is no model folder but somebody's disk."""

_MARKS = ("config.json", "params.json", "adapter_config.json")
"""What a folder must have to be looked into: a model's configuration, or an adapter's."""

_COMMIT_FILE_BYTES = 200


@dataclass(frozen=True, slots=True)
class Found:
    """A folder that holds a checkpoint."""

    id: str
    """Hub id, or the path relative to the directory it was found in."""
    path: Path
    """The snapshot, or the folder."""
    modified: int = 0
    """Unix seconds."""
    unfinished: bool = False
    """The cache holds blobs of a download that goes on or was broken off."""


def hub_cache(env: Mapping[str, str]) -> Path:
    """Where the Hugging Face libraries keep models, by their own environment variables."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if env.get(variable):
            return _expand(env[variable], env)
    return hf_home(env) / "hub"


def hf_home(env: Mapping[str, str]) -> Path:
    """`$HF_HOME`, by default below the user's cache folder."""
    if env.get("HF_HOME"):
        return _expand(env["HF_HOME"], env)
    cache = env.get("XDG_CACHE_HOME") or str(home(env) / ".cache")
    return _expand(cache, env) / "huggingface"


def _expand(text: str, env: Mapping[str, str]) -> Path:
    # As the libraries do it: variables too, unlike in our own settings.
    for name, value in env.items():
        text = text.replace(f"${{{name}}}", value)
    return expand(text, env)


class RepositoryMemory:
    """Remembers repositories between scans: a cache of hundreds is looked at again in milliseconds."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, ...], Found | None]] = {}

    def look(self, folder: str) -> Found | None:
        """As `_repository`; from memory when nothing that it depends on has changed."""
        known = self._known.get(folder)
        if known is not None and known[0] == _stamp(folder, known[1]):
            return known[1]
        found = _repository(Path(folder))
        self._known[folder] = (_stamp(folder, found), found)
        return found

    def keep_only(self, folders: set[str]) -> None:
        """Forget all others."""
        for folder in self._known.keys() - folders:
            del self._known[folder]


def _stamp(folder: str, found: Found | None) -> tuple[int, ...]:
    """Of `refs/main`, the list of snapshots, the snapshot itself, and the blobs, where downloads go on."""
    snapshot = str(found.path) if found is not None else folder
    numbers: list[int] = []
    for path in (f"{folder}/refs/main", f"{folder}/snapshots", snapshot, f"{folder}/blobs"):
        try:
            status = os.stat(path)  # noqa: PTH116  two thousand of these, and a Path costs more than the call
        except OSError:
            numbers += (0, 0)
        else:
            numbers += (status.st_ino, status.st_mtime_ns)
    return tuple(numbers)


def scan_hub_cache(cache: Path, memory: RepositoryMemory | None = None) -> tuple[Found, ...]:
    """The models in a hub cache, each by the snapshot that `main` points to, else by the newest."""
    known = memory or RepositoryMemory()
    folders = [entry.path for entry in _folders(cache) if entry.name.startswith("models--")]
    known.keep_only(set(folders))
    found = [repo for folder in folders if (repo := known.look(folder)) is not None]
    return tuple(sorted(found, key=lambda one: one.id))


def repository(cache: Path, repo_id: str) -> Found | None:
    """The model *repo_id* in a hub cache; None when it was never downloaded."""
    folder = cache / ("models--" + repo_id.replace("/", "--"))
    return _repository(folder) if repo_id.count("/") <= 1 and folder.is_dir() else None


def scan_directory(directory: Path) -> tuple[Found, ...]:
    """The checkpoints in *directory*, one or two levels deep (`name` or `org/name`)."""
    found = []
    for entry in _folders(directory):
        path = Path(entry.path)
        if _is_checkpoint(path):
            found.append(Found(entry.name, path, _modified(path)))
            continue
        for inner in _folders(path):
            deeper = Path(inner.path)
            if _is_checkpoint(deeper):
                found.append(Found(f"{entry.name}/{inner.name}", deeper, _modified(deeper)))
    return tuple(sorted(found, key=lambda one: one.id))


def _repository(folder: Path) -> Found | None:
    # The hub forbids `--` in names, so the first one is the slash; models without an organisation have none.
    repo_id = folder.name.removeprefix("models--").replace("--", "/", 1)
    snapshot = _snapshot(folder)
    if snapshot is None:
        return None
    names = _names(snapshot)
    if not names.intersection(_MARKS):
        return None  # a data set's card, a tokenizer, a GGUF file: nothing that an engine here loads
    unfinished = any(name.endswith(".incomplete") for name in _names(folder / "blobs"))
    return Found(repo_id, snapshot, _modified(snapshot), unfinished)


def _snapshot(folder: Path) -> Path | None:
    snapshots = folder / "snapshots"
    try:
        with (folder / "refs" / "main").open("rb") as file:
            commit = file.read(_COMMIT_FILE_BYTES).decode("ascii", "replace").strip()
    except OSError:
        commit = ""
    if commit and "/" not in commit and (snapshots / commit).is_dir():
        return snapshots / commit
    newest = max(_folders(snapshots), key=lambda entry: _modified(Path(entry.path)), default=None)
    return Path(newest.path) if newest is not None else None


def _is_checkpoint(path: Path) -> bool:
    return any((path / name).is_file() for name in _MARKS)


def _folders(path: Path) -> Iterator[os.DirEntry[str]]:
    """Folders in *path* (links to folders too), hidden ones left out, at most `MAX_MODELS`."""
    try:
        with os.scandir(path) as entries:
            chosen = [entry for _, entry in zip(range(MAX_MODELS), entries, strict=False)]
    except OSError:
        return
    for entry in chosen:
        try:
            is_folder = entry.is_dir()
        except OSError:
            continue
        if is_folder and not entry.name.startswith("."):
            yield entry


def _names(path: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(path))  # noqa: PTH208  names are all we need
    except OSError:
        return frozenset()


def _modified(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0
