"""Changes to a request on its way to its model, written into its bytes. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Edits:
    """What is taken out of a JSON body, and what is put into it."""

    strip: frozenset[str] = frozenset()
    """Top-level members that go."""
    put: tuple[bytes, ...] = ()
    """Members that are there whatever the client said, as JSON: `"temperature":0`; `strip` has their keys."""
    default: tuple[tuple[str, bytes], ...] = ()
    """Members (key, JSON) that are there where the client said nothing."""


NO_EDITS = Edits()


def make_edits(
    strip: Iterable[str] = (), put: Mapping[str, Any] | None = None, default: Mapping[str, Any] | None = None
) -> Edits:
    """The edits that take *strip* out, then fill in *default*, then set *put*."""
    put = put or {}
    return Edits(
        strip=frozenset(strip) | put.keys(),
        put=tuple(_member(key, value) for key, value in put.items()),
        default=tuple((key, _member(key, value)) for key, value in (default or {}).items() if key not in put),
    )


def _member(key: str, value: Any) -> bytes:
    return json.dumps({key: value}, separators=(",", ":"))[1:-1].encode()
