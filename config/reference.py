"""Writes docs/reference/configuration.md from `config.schema`: every key, its type, default and meaning.

`python -m config.reference` rewrites the page; `--check` changes nothing and exits 1 when it is stale.
The meaning of a key is the docstring under it in the schema, so that there is one place to write it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from config.generated import refresh
from config.schema import Section, Settings
from config.units import (
    parse_budget,
    parse_budgets,
    parse_duration,
    parse_memory,
    parse_moment,
    parse_size,
    write_duration,
    write_size,
)

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "configuration.md"

INTRODUCTION: Final = """\
# Configuration

<!-- generated from config/schema.py by `make reference`; edit the docstrings there -->

Every key is optional: without a file, the models that are found are served. The file is the first of these
that exists: `--config FILE`, `$MODELYARD_CONFIG`, `modelyard.yaml` in the working directory,
`$XDG_CONFIG_HOME/modelyard/modelyard.yaml` (`~/.config` where that is unset),
`/etc/modelyard/modelyard.yaml`. An unknown key, a wrong type or a value out of range is an error that names
the file, the line and the key; nothing is guessed. `modelyard config check` reads the file as the daemon
would.

A *duration* is a number of seconds or `30s`, `500ms`, `5m`, `1h30m`. A *size* is a number of bytes or
`8GiB`, `500MB`. A *budget* is a size, a share such as `80%`, or `auto`.
"""

_UNITS = {
    parse_duration: "duration",
    parse_size: "size",
    parse_memory: "size, or device to size",
    parse_budget: "budget",
    parse_budgets: "budget, or GPU to budget",
    parse_moment: "date",
}


def sections() -> tuple[tuple[str, type[Section]], ...]:
    """(path in the file, class) for the whole file, the top level first, in the order of the schema."""
    found: list[tuple[str, type[Section]]] = [("", Settings)]
    _add_sections(Settings, "", found)
    return tuple(found)


def _add_sections(section: type[Section], prefix: str, found: list[tuple[str, type[Section]]]) -> None:
    """The sections in *section*, each once: further places of one already there are told by the type."""
    for name, field in section.model_fields.items():
        for inner, path in _sections_in(field.annotation, prefix + name):
            if inner not in (known for _, known in found):
                found.append((path, inner))
                _add_sections(inner, f"{path}.", found)


def _sections_in(annotation: Any, path: str) -> list[tuple[type[Section], str]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [(annotation, path)]
    suffix = {dict: ".<name>", tuple: "[]"}.get(get_origin(annotation), "")
    return [hit for arg in get_args(annotation) for hit in _sections_in(arg, path + suffix)]


def type_name(field: FieldInfo) -> str:
    """What an operator may write there, in words."""
    return _name_of(field.annotation, field.metadata)


def _name_of(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    for validator in metadata:
        unit = _UNITS.get(getattr(validator, "func", None))  # type: ignore[arg-type]  # None is no key: that is the point
        if unit is not None:
            return unit
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_name_of(arg) for arg in arguments if arg is not NoneType)
    if origin is tuple:
        return f"list of {_name_of(arguments[0])}"
    if origin is dict:
        return f"{_name_of(arguments[0])} to {_name_of(arguments[1])}"
    if hasattr(annotation, "__metadata__"):
        return _name_of(arguments[0], annotation.__metadata__)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    if annotation is Any:
        return "anything"
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return ", ".join(f"`{choice.value}`" for choice in annotation)
    return {str: "text", bool: "true or false", int: "number", float: "number", Path: "path"}[annotation]


def default_of(field: FieldInfo) -> str:
    """The default as an operator would write it; `required` and `unset` in words."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    if isinstance(value, Section):
        return "see below"
    kind = type_name(field)
    if kind == "duration":
        return f"`{write_duration(value)}`"
    if kind == "size":
        return f"`{write_size(value)}`"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple | dict):
        return ", ".join(f"`{one}`" for one in value) or "none"
    return f"`{value}`"


def page() -> str:
    """The whole page in Markdown."""
    parts = [INTRODUCTION]
    for path, section in sections():
        title = f"## `{path}`" if path else "## Top level"
        about = " ".join((section.__doc__ or "").split())
        parts.append(f"{title}\n\n{about}\n\n{_table(section)}\n")
    return "\n".join(parts)


def _table(section: type[Section]) -> str:
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in section.model_fields.items():
        cells = (
            f"`{name}`",
            type_name(field),
            default_of(field),
            " ".join((field.description or "").split()),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Rewrite the page, or with `--check` say whether it is fresh. Returns the exit status."""
    return refresh(PAGE, page(), arguments, source="config/schema.py", target="reference")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
