"""Server-sent events from the daemon, and the status that its stream keeps fresh. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

EVENTS_KEPT: Final = 30
"""As many recent events as `/api/status` has."""


def events(lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """(kind, data) of each event, in order; comments and what is no JSON are skipped."""
    kind, data = "message", ""
    for line in lines:
        if line.startswith("event:"):
            kind = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
        elif not line:
            try:
                yield kind, json.loads(data)
            except ValueError:
                pass
            kind, data = "message", ""


def merged(status: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """*status* with a `change` of the status stream worked in: the same shape, newer."""
    gone = set(change.get("gone") or ())
    models = {one["id"]: one for one in (*status["models"], *change["models"]) if one["id"] not in gone}
    happened = [*change["recent_events"], *status["recent_events"]][:EVENTS_KEPT]
    rest = {key: value for key, value in change.items() if key != "gone"}
    return {
        **status,
        **rest,
        "models": [models[model] for model in sorted(models)],
        "recent_events": happened,
    }
