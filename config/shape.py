"""What the schema allows at a place: the keys of a section, the choices of a value. Pure.

For error messages that name what would have been right.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

Path = tuple[str | int, ...]


def children(root: type[BaseModel], path: Path) -> tuple[str, ...]:
    """Keys that are known in the section at *path*; empty when any key is allowed there."""
    names: list[str] = []
    for kind in _at(root, path):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names.extend(kind.model_fields)
        elif get_origin(kind) is dict:
            names.extend(_words(get_args(kind)[0]))
    return tuple(names)


def choices(root: type[BaseModel], path: Path) -> tuple[str, ...]:
    """Words allowed as the value at *path*; for a key that is itself a choice, the words for the key."""
    words = tuple(word for kind in _at(root, path) for word in _words(kind))
    return words or children(root, path[:-1])


def _words(kind: Any) -> Iterator[str]:
    for branch in _branches(kind):
        if get_origin(branch) is Literal:
            yield from (str(word) for word in get_args(branch))
        elif isinstance(branch, type) and issubclass(branch, Enum):
            yield from (str(member.value) for member in branch)


def _at(root: Any, path: Path) -> list[Any]:
    kinds = [root]
    for part in path:
        kinds = [inner for kind in kinds for inner in _step(kind, part)]
    return kinds


def _step(kind: Any, part: str | int) -> Iterator[Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        if field is not None:
            yield from _branches(field.annotation)
    elif get_origin(kind) is dict:
        yield from _branches(get_args(kind)[1])
    elif get_origin(kind) is tuple:
        yield from _branches(get_args(kind)[0])


def _branches(kind: Any) -> Iterator[Any]:
    """The alternatives of a union, without `Annotated`."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _branches(get_args(kind)[0])
    elif origin is Union or origin is UnionType:
        for branch in get_args(kind):
            yield from _branches(branch)
    else:
        yield kind
