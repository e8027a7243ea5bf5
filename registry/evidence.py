"""Settles what is known of a model from everybody who says something. Pure.

Ranks: operator, running server, files, name. For capabilities the files rarely know everything (a chat
template says whether tools are possible, nothing says whether it writes code), so the name completes what
they leave open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from config.schema import ModelConfig
from registry.capability import Capability
from registry.checkpoint import Checkpoint
from registry.fact import Fact, Rank, settle
from registry.model import Facts
from registry.names import FamilyTable, NameFacts, parse_name
from registry.probe import ServedModel
from registry.quantization import alike

_ROLES = frozenset({
    Capability.GENERATE, Capability.EMBED, Capability.RERANK, Capability.CLASSIFY, Capability.TRANSCRIBE,
    Capability.SPEAK, Capability.IMAGE,
})  # fmt: skip
"""What a model is for; a running server has a route for it or has none."""

SAME_SIZE = 1.25
"""A name rounds (`30B` for 30.5 billion): up to this ratio it agrees with the files."""


def settle_facts(
    model_id: str,
    name: NameFacts,
    *,
    checkpoint: Checkpoint | None = None,
    options: ModelConfig | None = None,
    served: ServedModel | None = None,
    families: FamilyTable | None = None,
) -> Facts:
    """The facts of a model, each with its source and with what disagrees.

    With *families* a name that says no family is helped by config.json's `model_type`.
    """
    files = checkpoint or Checkpoint()
    said = options or ModelConfig(source="?")
    live = served or ServedModel(model_id)
    header = "GGUF header" if files.weight_format == "gguf" else None
    by_type = _by_type(files, families)
    context_key = "context" if said.max_model_len is None else "max_model_len"
    return Facts(
        capabilities=settle(_capabilities(model_id, name, files, said, live)),
        context_length=settle(
            [
                Fact(said.context_tokens, Rank.OPERATOR, f"models.{model_id}.{context_key}"),
                Fact(live.context_length, Rank.ENGINE, "/v1/models"),
                Fact(files.context_length, Rank.FILES, files.context_source),
                Fact(name.context, Rank.NAME, name.context_source),
            ]
        ),
        parameters=settle(
            [
                Fact(live.parameters, Rank.ENGINE, "/v1/models"),
                Fact(files.parameters, Rank.FILES, "weights"),
                Fact(
                    _unless_same(name.parameters, files.parameters),
                    Rank.NAME,
                    "name (estimated: experts share a part)" if name.parameters_estimated else "name",
                ),
            ]
        ),
        active_parameters=settle(
            [
                Fact(live.active_parameters, Rank.ENGINE, "/v1/models"),
                Fact(name.active_parameters, Rank.NAME, "name"),
            ]
        ),
        quantization=settle(
            [
                Fact(live.quantization, Rank.ENGINE, "/v1/models"),
                Fact(files.quantization, Rank.FILES, header or "config.json"),
                Fact(
                    _unless_alike(name.quantization, live.quantization or files.quantization),
                    Rank.NAME,
                    name.quantization_source,
                ),
            ]
        ),
        size_bytes=settle(
            [
                Fact(live.size_bytes, Rank.ENGINE, "/v1/models"),
                Fact(files.size_bytes, Rank.FILES, "weight files"),
            ]
        ),
        family=settle(
            [
                Fact(live.family, Rank.ENGINE, "/v1/models"),
                Fact(name.family, Rank.NAME, "name"),
                Fact(
                    by_type if name.family is None else None,
                    Rank.FILES,
                    "config.json model_type",
                ),
            ]
        ),
        base_family=settle([Fact(name.base_family, Rank.NAME, "name")]),
        version=settle([Fact(name.version, Rank.NAME, "name")]),
        stage=settle([Fact(name.stage, Rank.NAME, "name")]),
        provider=settle([Fact(name.provider, Rank.NAME, "name")]),
        architecture=settle(
            [
                Fact(live.architecture, Rank.ENGINE, "/v1/models"),
                Fact(files.architecture, Rank.FILES, header or "config.json architectures"),
            ]
        ),
        chat_template=settle([Fact(files.template, Rank.FILES, header or "chat template")]),
        license=settle([Fact(files.license, Rank.FILES, header or "the card")]),
        base_model=settle([Fact(files.base_model, Rank.FILES, "adapter_config.json")]),
        kv_bytes_per_token=settle(
            [
                Fact(
                    files.kv.bytes_per_token if files.kv else None,
                    Rank.FILES,
                    f"{header or 'config.json'}, computed",
                )
            ]
        ),
    )


_GLUED_VERSION = re.compile(r"(?<=[a-z])(\d)p?(\d)(?=v?(?:_|$))")
"""`deepseek_v32`, `kimi_k25`, `step3p7`, `glm46v`: a point is missing."""
_NAMED_OTHERWISE = {"glm_moe_dsa": "glm 5", "glm4_moe": "glm 4.5", "glm4_moe_lite": "glm 4.7"}


def _by_type(files: Checkpoint, families: FamilyTable | None) -> str | None:
    """The family that a `model_type` belongs to; every house builds on Llama's, so that one says nothing.

    It says nothing of who made the model: anyone trains a model of their own on Qwen 3's architecture.
    """
    if files.model_type in (None, "llama", "mistral") or families is None or files.is_adapter:
        return None
    said = _NAMED_OTHERWISE.get(files.model_type) or _GLUED_VERSION.sub(r"\1.\2", files.model_type)
    return parse_name(said.removesuffix("_text"), families).family


def _capabilities(
    model_id: str, name: NameFacts, files: Checkpoint, said: ModelConfig, live: ServedModel
) -> Iterator[Fact[frozenset[Capability]]]:
    if said.capabilities is not None:
        yield Fact(frozenset(said.capabilities), Rank.OPERATOR, f"models.{model_id}.capabilities")
    if live.capabilities is not None:
        yield Fact(live.capabilities, Rank.ENGINE, "/v1/models")
    beneath = list(_without_engine(name, files))
    yield from _by_engine(live, settle(beneath).value)
    yield from beneath


def _by_engine(
    live: ServedModel, otherwise: frozenset[Capability] | None
) -> Iterator[Fact[frozenset[Capability]]]:
    """What routes and health page show; what they say nothing about stays as it is known *otherwise*."""
    if live.roles is not None:
        rest = (otherwise or frozenset()) - _ROLES
        if Capability.GENERATE not in live.roles:
            rest &= {Capability.VISION}
        source = live.roles_source
        if rest:
            source = f"{source}; files or name: {', '.join(sorted(rest))}"
        yield Fact(live.roles | rest, Rank.ENGINE, source)
    elif live.sees is not None and otherwise:
        sight = {Capability.VISION, Capability.VIDEO}
        seen = otherwise | {Capability.VISION} if live.sees else otherwise - sight
        yield Fact(frozenset(seen), Rank.ENGINE, "/health model_type")


def _without_engine(name: NameFacts, files: Checkpoint) -> Iterator[Fact[frozenset[Capability]]]:
    by_name = name.capabilities
    if not files.yes:
        yield Fact(by_name, Rank.NAME, "name")
    elif by_name is not None and name.is_pooling and not files.role_is_certain:
        # Its class only says that it was made from a chat model; the name knows what for.
        yield Fact(by_name, Rank.NAME, "name (the files say no more than ...ForCausalLM)")
    else:
        added = (by_name or frozenset()) - files.yes - files.no
        source = "files" if not added else f"files; name: {', '.join(sorted(added))}"
        yield Fact(files.yes | added, Rank.FILES, source)
        if by_name is not None and by_name & files.no:
            yield Fact(by_name, Rank.NAME, "name")


def _unless_same(named: int | None, measured: int | None) -> int | None:
    if named and measured and max(named, measured) <= SAME_SIZE * min(named, measured):
        return None
    return named


def _unless_alike(named: str | None, found: str | None) -> str | None:
    return None if named and found and alike(named, found) else named
