"""Facts as answers show them: each value with who says it and who says otherwise. Pure.

What nobody knows is null. Two things are assumed where they are unknown, and marked as such: the context of a
model that generates, and the size of weights whose parameters are known. Nothing is decided by them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Final

from registry.capability import Capability
from registry.fact import Fact, Rank
from registry.model import Facts, Model

ASSUMED_CONTEXT: Final = 8192
"""What every model of the last years takes at least: too little is safe, too much is a failed request."""

UNKNOWN: Final = "unknown"

_BITS = re.compile(r"(?:^|[^0-9a-z])(?:w|i?q|tq|int|fp|nvfp|mxfp|f|bf)?(\d{1,2})(?:bit|a\d+|_|$|[^0-9a-z])")
_FOUR_BIT = frozenset({"awq", "gptq", "bnb", "autoround", "hqq"})
_SCALES: Final = 0.5
"""Bits per weight that scales and unquantised layers add below eight bits."""


def described(facts: Facts) -> dict[str, dict[str, Any]]:
    """Every fact by name: `value`, `source`, `rank`, and `others` where somebody disagrees."""
    shown = {field.name: _shown(getattr(facts, field.name)) for field in fields(facts)}
    capabilities = facts.capabilities.value or frozenset()
    if not facts.context_length.known and Capability.GENERATE in capabilities:
        shown["context_length"] = _assumed(ASSUMED_CONTEXT, "default")
    estimate = estimated_bytes(facts)
    if not facts.size_bytes.known and estimate is not None:
        shown["size_bytes"] = _assumed(estimate, "estimated from parameters and quantization")
    return shown


def estimated_bytes(facts: Facts) -> int | None:
    """What the weights take on disk by parameters and quantisation; None without parameters."""
    if facts.parameters.value is None:
        return None
    return round(facts.parameters.value * bits_per_weight(facts.quantization.value) / 8)


def bits_per_weight(quantization: str | None) -> float:
    """Bits that a parameter takes, about: 16 where nothing is said, 4.5 for `mlx-4bit`."""
    text = (quantization or "").lower()
    match = _BITS.search(f"-{text}")
    bits = int(match[1]) if match else 4 if text in _FOUR_BIT else 16
    return bits + _SCALES if bits < 8 else float(min(bits, 32))


def _shown(fact: Fact[Any]) -> dict[str, Any]:
    if not fact.known:
        return {"value": None, "source": UNKNOWN, "rank": None}
    shown = {"value": plain(fact.value), "source": fact.source, "rank": fact.rank.word}
    if fact.others:
        shown["others"] = [{"value": plain(value), "source": source} for value, source in fact.others]
    return shown


def _assumed(value: int, source: str) -> dict[str, Any]:
    return {"value": value, "source": source, "rank": Rank.DEFAULT.word}


def plain(value: object) -> object:
    """*value* as JSON has it."""
    return sorted(value) if isinstance(value, frozenset) else value


# -- what follows from the facts -------------------------------------------------------------------


def display_name(model_id: str) -> str:
    """An id for people: `Qwen/Qwen3-8B-4bit` is `Qwen3 8B 4bit`."""
    name = re.sub(r"[-_:@]+", " ", model_id.rpartition("/")[2]).strip()
    return name or model_id


def tags(facts: Facts) -> list[str]:
    """Words to search by: what it can do, its family, its stage, its quantisation, whether it has experts."""
    said: Iterable[str | None] = (
        *sorted(facts.capabilities.value or ()),
        facts.family.value,
        facts.stage.value,
        facts.quantization.value,
        "moe" if facts.active_parameters.known else None,
    )
    return list(dict.fromkeys(tag for tag in said if tag))


_PARAMETERS: Final = {
    Capability.GENERATE: ("max_tokens", "temperature", "top_p", "stop", "seed", "stream"),
    Capability.TOOL_USE: ("tools", "tool_choice"),
    Capability.REASONING: ("chat_template_kwargs",),
    Capability.EMBED: ("input", "encoding_format"),
    Capability.RERANK: ("query", "documents", "top_n"),
    Capability.TRANSCRIBE: ("file", "language", "prompt", "response_format"),
    Capability.SPEAK: ("input", "voice"),
}


def supported_parameters(facts: Facts) -> list[str]:
    """Request fields that mean something to this model, of those that all engines understand alike."""
    can = facts.capabilities.value or frozenset()
    return [name for capability, names in _PARAMETERS.items() if capability in can for name in names]


def registry_id(model: Model) -> str:
    """`<engine>/<id with / as _>`: a name under which the model is found too. Two ids may share one."""
    return f"{model.engine.value}/{model.id.replace('/', '_')}"


def dossier(model: Model) -> dict[str, Any]:
    """Everything known of a model, beyond its entry in `/v1/models`."""
    return {
        "display_name": display_name(model.id),
        "registry_id": registry_id(model),
        "tags": tags(model.facts),
        "supported_parameters": supported_parameters(model.facts),
        "facts": described(model.facts),
    }
