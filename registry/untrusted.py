"""Small readers of JSON that somebody else wrote: a value of the wrong kind is as if it were not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]


def text_of(value: object) -> str | None:
    """A string that is not empty."""
    return value if isinstance(value, str) and value else None


def whole_of(value: object) -> int | None:
    """A positive whole number below a billion.

    Tokenizers write 1e30 for "no limit"; booleans are ints in Python.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**9:
        return None
    return int(value)


def mapping_of(value: object) -> Json:
    """An object; empty for anything else."""
    return value if isinstance(value, dict) else {}


def first_whole(source: Json, *keys: str) -> int | None:
    """The first of *keys* with a usable number."""
    return next((value for key in keys if (value := whole_of(source.get(key))) is not None), None)


def words_of(value: object) -> tuple[str, ...]:
    """The strings in a list."""
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
