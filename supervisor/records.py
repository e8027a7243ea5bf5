"""`ChildRecord` from JSON: out of a shim's answer or the state file, written by any version of us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from config.vocabulary import EngineName
from registry.engine import ModelId
from supervisor.ports import ChildRecord

_NAMES = frozenset(field.name for field in fields(ChildRecord))


def record_from_json(data: Mapping[str, Any]) -> ChildRecord | None:
    """The record, or None when a field is missing or makes no sense. Unknown fields are ignored."""
    known = {name: value for name, value in data.items() if name in _NAMES}
    try:
        return ChildRecord(
            **known
            | {
                "model": ModelId(str(data["model"])),
                "engine": EngineName(data["engine"]),
                "incarnation": int(data["incarnation"]),
                "port": int(data["port"]),
                "shim_pid": int(data["shim_pid"]),
                "shim_started": float(data["shim_started"]),
                "pid": int(data["pid"]),
                "spawned_at": float(data["spawned_at"]),
            }
        )
    except (KeyError, TypeError, ValueError):
        return None
