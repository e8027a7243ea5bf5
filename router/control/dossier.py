"""The shapes of what is known of one model, beside its entry in the list or its instance."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from router.control.models import ModelEntry
from router.control.status import ModelStatus


class FactEntry(TypedDict):
    """A fact with who says it; `value` is null when nobody knows."""

    value: Any
    source: str
    rank: str | None
    """`operator`, `engine`, `files`, `name` or `default`: the first is believed most."""
    others: NotRequired[list[dict[str, Any]]]
    """`value` and `source` of those of lower rank that say something else."""


class Dossier(TypedDict):
    """What is known of a model; `registry.describe.dossier` makes it."""

    display_name: str
    registry_id: str
    """`<engine>/<id with / as _>`: it is found by this name too."""
    tags: list[str]
    supported_parameters: list[str]
    """Request fields that mean something to it."""
    facts: dict[str, FactEntry]


class ModelDossier(ModelEntry, Dossier):
    """One model in OpenAI's shape, with everything that is known of it."""


class ModelDetail(ModelStatus, Dossier):
    """One model with its instance and everything that is known of it."""
