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


@dataclass(frozen=True, slots=True)
class TinyShape:
    """A configuration from which engines can build a model of a few layers; `dtype` is not in it."""

    name: str
    dtype: str
    """Of its weights, and so of its cache."""
    config: dict[str, Any]


def read_tiny() -> list[TinyShape]:
    """All of `tests/registry/data/tiny_shapes.yaml`."""
    data = yaml.safe_load((DATA / "tiny_shapes.yaml").read_text(encoding="utf-8"))
    return [
        _tiny(name, entry["dtype"], entry["config"], data["base"]) for name, entry in data["shapes"].items()
    ]


def _tiny(name: str, dtype: str, said: dict[str, Any], base: dict[str, Any]) -> TinyShape:
    nested = said.get("text_config")
    config = {**base, **said} if nested is None else {**said, "text_config": {**base, **nested}}
    return TinyShape(name, dtype, config)
