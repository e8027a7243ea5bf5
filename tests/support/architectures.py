"""The published architectures of `tests/registry/data/architectures.yaml`, read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.support.named import DATA


@dataclass(frozen=True, slots=True)
class Published:
    """An architecture as it is published, and what is to be read from it."""

    name: str
    config: dict[str, Any]
    can: str
    """Letters of `tests.support.named`."""
    context: int | None
    kv_per_token: int | None
    """Bytes, with the windows full."""
    template: str | None = None
    tools: str | None = None
    """How it writes tool calls."""
    quantization: str = "bf16"
    files: dict[str, Any] = field(default_factory=dict)
    kv_at_32k: int | None = None
    """Bytes of a sequence of 32768 tokens, where that is not the product."""


def read_published() -> list[Published]:
    """All of them, each with the text of its template."""
    data = yaml.safe_load((DATA / "architectures.yaml").read_text(encoding="utf-8"))
    templates = data["templates"]
    return [
        Published(**{**entry, "template": templates[entry["template"]] if "template" in entry else None})
        for entry in data["published"]
    ]
