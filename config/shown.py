"""The effective configuration with the source of every value: what `modelyard config show` shows. Pure.

A value's source is `FILE:LINE`, the environment variable it comes from (`$STATE_DIRECTORY`), or `default`.
What may be a secret is replaced by `***`: hashes of keys, variables and arguments that are named like one, a
password in an address. Without those, the YAML reads back as the same configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic.fields import FieldInfo

from config import places
from config.document import Path as KeyPath
from config.document import dotted
from config.keys import keys_file
from config.load import Loaded
from config.reference import type_name
from config.schema import Section
from config.units import write_budget, write_duration, write_moment, write_size

HIDDEN: Final = "***"
DEFAULT: Final = "default"
WIDEST: Final = 52
"""Column up to which sources are aligned; behind a longer line they stand where it ends."""

_SECRET: Final = re.compile(r"(?:^|[-_])(?:key|token|secret|credentials?)(?:$|[-_])|passw", re.IGNORECASE)
_OPTION: Final = re.compile(r"(--?[\w-]+)([= ]+)(\S+)")
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]+@")

_WRITERS: Final[Mapping[str, Any]] = {
    "duration": write_duration,
    "size": write_size,
    "size, or device to size": write_size,
    "budget": write_budget,
    "budget, or GPU to budget": write_budget,
    "date": write_moment,
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value without keys of its own."""

    value: Any
    """In the schema's units: seconds, bytes."""
    written: Any
    """As an operator writes it: `10m`, `8GiB`."""
    source: str


Tree = Leaf | dict[str, "Tree"] | list["Tree"]


def effective(loaded: Loaded, env: Mapping[str, str]) -> dict[str, Tree]:
    """Every key with its value and source; unset keys of named entries (models, keys …) are left out."""
    return _Reading(loaded, env).section(_resolved(loaded, env), ())


def _resolved(loaded: Loaded, env: Mapping[str, str]) -> Section:
    """The settings with the places that they leave to the environment."""
    settings = loaded.settings
    found = {"state_dir": settings.state_dir or places.state_dir(env), "keys_file": keys_file(settings, env)}
    return settings.model_copy(update=found)


class _Reading:
    def __init__(self, loaded: Loaded, env: Mapping[str, str]) -> None:
        self._file = None if loaded.path is None else str(loaded.path)
        self._document, self._env = loaded.written, env

    def section(self, section: Section, path: KeyPath, *, is_entry: bool = False) -> dict[str, Tree]:
        found: dict[str, Tree] = {}
        for key, field in type(section).model_fields.items():
            value, here = getattr(section, key), (*path, key)
            if not (is_entry and value in (None, (), {}) and not self._is_written(here)):
                found[key] = self._tree(value, field, here)
        return found

    def _tree(self, value: Any, field: FieldInfo, path: KeyPath) -> Tree:
        if isinstance(value, Section):
            return self.section(value, path)
        if isinstance(value, dict) and value:
            return {
                str(key): self._entry(one, (*path, key))
                if isinstance(one, Section)
                else self._leaf(HIDDEN if _SECRET.search(str(key)) else one, field, (*path, key))
                for key, one in value.items()
            }
        if isinstance(value, tuple) and any(isinstance(one, Section) for one in value):
            return [self._entry(one, (*path, at)) for at, one in enumerate(value)]
        return self._leaf(value, field, path)

    def _entry(self, entry: Section, path: KeyPath) -> Tree:
        return self.section(entry, path, is_entry=True) or Leaf({}, {}, self._source(path))

    def _leaf(self, value: Any, field: FieldInfo, path: KeyPath) -> Leaf:
        is_hash = path[0] == "keys" and path[-1] == "hash"
        plain = HIDDEN if is_hash else _without_secrets(_plain(value))
        write = None if plain is None else _WRITERS.get(type_name(field))
        written = plain if write is None else write(value)
        # A size in bytes is a number, and needs no quotes.
        is_count = write is not None and written.isdecimal()
        return Leaf(plain, int(written) if is_count else written, self._source(path))

    def _is_written(self, path: KeyPath) -> bool:
        return path in self._document.lines

    def _source(self, path: KeyPath) -> str:
        if self._file is not None and self._is_written(path):
            return f"{self._file}:{self._document.lines[path]}"
        return next((f"${name}" for name in _VARIABLES.get(path[0], ()) if self._env.get(name)), DEFAULT)


_VARIABLES: Final[Mapping[str | int, tuple[str, ...]]] = {
    "state_dir": ("STATE_DIRECTORY", "XDG_STATE_HOME"),
    "endpoints": ("VLLM_MLX_ENDPOINT",),
}
"""Variables that decide what a key is while the file does not; the first that is set does."""


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path | str) else value


def _without_secrets(value: Any) -> Any:
    """Text, or a command line, without the values of options that are named like secrets."""
    if isinstance(value, str):
        return _OPTION.sub(_hide, _USERINFO.sub(f"{HIDDEN}@", value))
    if not isinstance(value, list):
        return value
    named = [False, *(isinstance(word, str) and _names_secret(word) for word in value)]
    return [HIDDEN if after else _without_secrets(word) for word, after in zip(value, named, strict=False)]


def _names_secret(word: str) -> bool:
    return word.startswith("-") and "=" not in word and _SECRET.search(word.lstrip("-")) is not None


def _hide(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}{HIDDEN}" if _names_secret(found[1]) else found[0]


# -- shown -----------------------------------------------------------------------------------------


def plain(tree: Tree) -> Any:
    """The values alone, nested as in the file, in the schema's units."""
    if isinstance(tree, dict):
        return {key: plain(one) for key, one in tree.items()}
    return [plain(one) for one in tree] if isinstance(tree, list) else tree.value


def sources(tree: Tree, path: KeyPath = ()) -> dict[str, str]:
    """Source by dotted key: `{"models.qwen.ttl": "/etc/modelyard/modelyard.yaml:12"}`."""
    if isinstance(tree, Leaf):
        return {dotted(path): tree.source}
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {key: source for part, one in pairs for key, source in sources(one, (*path, part)).items()}


def yaml_lines(tree: dict[str, Tree]) -> Iterator[tuple[str, str]]:
    """(YAML, comment) line by line; the comment is "" for a line without a value."""
    lines = list(_lines(tree, ""))
    wide = min(WIDEST, max((len(text) for text, source in lines if source), default=0))
    for text, source in lines:
        # The file is named once, above: of its values the line is enough, and stays readable in 80 columns.
        where = f"line {source.rpartition(':')[2]}" if re.search(r":\d+$", source) else source
        yield (text.ljust(wide) if where else text), (f"# {where}" if where else "")


def _lines(tree: dict[str, Tree], indent: str) -> Iterator[tuple[str, str]]:
    for key, one in tree.items():
        name = f"{indent}{_scalar(key)}:"
        if isinstance(one, Leaf):
            yield f"{name} {_scalar(one.written)}", one.source
            continue
        yield name, ""
        if isinstance(one, dict):
            yield from _lines(one, f"{indent}  ")
            continue
        for item in one:
            assert isinstance(item, dict)  # what is no section is a leaf
            for at, (text, source) in enumerate(_lines(item, f"{indent}    ")):
                yield (f"{indent}  - {text.lstrip()}" if at == 0 else text), source


def _scalar(value: Any) -> str:
    """*value* on one line of YAML, quoted where YAML or our own reader would take it for something else."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")
