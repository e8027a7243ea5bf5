"""Reads `families.yaml` and checks it: a typing error in the data fails here, not as a wrong fact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from registry.capability import Capability
from registry.names import Family, FamilyTable, Variant

DEFAULT_FILE = Path(__file__).with_name("families.yaml")

_FAMILY_KEYS = {"name", "match", "can", "provider", "context", "bare", "later", "native", "when", "sizes"}
_VARIANT_KEYS = {"has", "can", "cannot", "context", "family", "native"}


class FamiliesError(Exception):
    """The data is wrong; the message names the row."""


def load_families(path: Path = DEFAULT_FILE) -> FamilyTable:
    """The table in *path*. Raises FamiliesError."""
    # libyaml's loader is ten times as fast, and not in every build of PyYAML.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return build_table(yaml.load(path.read_text(encoding="utf-8"), Loader=loader))  # noqa: S506  both are safe


def build_table(data: Any) -> FamilyTable:
    """The table in parsed YAML. Raises FamiliesError for anything that is not as described in the file."""
    if not isinstance(data, dict) or set(data) - {"providers", "roles", "words", "families"}:
        raise FamiliesError("expected providers, roles, words and families")
    families = tuple(_family(row) for row in data.get("families", []))
    names = [family.name for family in families]
    patterns = [pattern for family in families for pattern in family.match]
    _no_duplicates("name", names)
    _no_duplicates("match", [" ".join(pattern) for pattern in patterns])
    return FamilyTable(
        families=families,
        providers={str(org): str(name) for org, name in data.get("providers", {}).items()},
        roles=tuple(
            (_capability(role, "roles"), frozenset(map(str, words)))
            for role, words in data.get("roles", {}).items()
        ),
        words={
            str(word): frozenset(_capability(name, "words") for name in names)
            for word, names in data.get("words", {}).items()
        },
        by_first=_by_first(families),
    )


def _by_first(families: tuple[Family, ...]) -> dict[str, tuple[tuple[tuple[str, ...], Family], ...]]:
    found: dict[str, list[tuple[tuple[str, ...], Family]]] = {}
    for family in families:
        for pattern in family.match:
            found.setdefault(pattern[0], []).append((pattern, family))
    return {first: tuple(sorted(rows, key=lambda row: -len(row[0]))) for first, rows in found.items()}


def _no_duplicates(what: str, values: list[str]) -> None:
    twice = {value for value in values if values.count(value) > 1}
    if twice:
        raise FamiliesError(f"{what} given twice: {', '.join(sorted(twice))}")


def _family(row: Any) -> Family:
    name = str(row.get("name", "?")) if isinstance(row, dict) else str(row)
    if not isinstance(row, dict) or set(row) - _FAMILY_KEYS or not {"name", "match", "can"} <= set(row):
        raise FamiliesError(f"{name}: expected name, match and can, of {sorted(_FAMILY_KEYS)}")
    if row.get("bare", "base") != "base":
        raise FamiliesError(f"{name}: bare can only be base")
    match = tuple(tuple(str(pattern).split()) for pattern in row["match"])
    if not all(match):
        raise FamiliesError(f"{name}: an empty match")
    return Family(
        name=name,
        match=match,
        can=_capabilities(row["can"], name),
        provider=row.get("provider"),
        context=_whole(row.get("context"), name),
        bare_is_base="bare" in row,
        later=_later(row.get("later"), name),
        native=_word(row.get("native"), name),
        variants=tuple(_variant(variant, name) for variant in row.get("when", [])),
        sizes={str(size): _size(value, name) for size, value in row.get("sizes", {}).items()},
    )


def _variant(row: Any, name: str) -> Variant:
    if not isinstance(row, dict) or set(row) - _VARIANT_KEYS or "has" not in row:
        raise FamiliesError(f"{name}: when needs has, and takes {sorted(_VARIANT_KEYS)}")
    return Variant(
        has=tuple(frozenset(word.split("+")) for word in str(row["has"]).split()),
        can=_capabilities(row.get("can", ""), name),
        cannot=_capabilities(row.get("cannot", ""), name),
        context=_whole(row.get("context"), name),
        family=_word(row.get("family"), name),
        native=_word(row.get("native"), name),
    )


def _word(value: Any, name: str) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise FamiliesError(f"{name}: {value!r} is not a word")
    return None if value is None else str(value)


def _later(value: Any, name: str) -> str | None:
    if value is not None and str(value).count("{}") != 1:
        raise FamiliesError(f"{name}: later needs one {{}} for the generation")
    return _word(value, name)


def _size(value: Any, name: str) -> tuple[float, float | None]:
    match value:
        case [int() | float() as total, int() | float() as active]:
            return float(total), float(active)
        case [int() | float() as total]:
            return float(total), None
    raise FamiliesError(f"{name}: a size is [total] or [total, active] in billions")


def _whole(value: Any, name: str) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise FamiliesError(f"{name}: {value!r} is not a number of tokens")
    return value


def _capabilities(text: Any, name: str) -> frozenset[Capability]:
    return frozenset(_capability(word, name) for word in str(text).split())


def _capability(word: Any, name: str) -> Capability:
    try:
        return Capability(word)
    except ValueError:
        raise FamiliesError(f"{name}: {word!r} is not a capability") from None
