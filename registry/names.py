"""What a model's name says about it. Pure: the table of families is a value (`registry.families` reads it).

Names are read by segments (`registry.name_grammar`), never by bare substrings: `gemma-4bit` is Gemma in 4
bits and not Gemma 4, `marvl` sees nothing. A name is the weakest source of facts; everything may be None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from registry.capability import Capability
from registry.name_grammar import Segments, Sizes, read_context, read_quantization, read_sizes, take_apart

MAX_NAME = 512
"""Longer names are cut: the hub allows 96 for a repository, and requests bring any length."""

_BILLION = 10**9
_VL_CONTEXT = 32768
"""What every vision-language model takes at least, since an image alone costs thousands of tokens."""


# -- the table -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variant:
    """What further words in the name change."""

    has: tuple[frozenset[str], ...]
    """One of these, with all its words, is enough. `moe` also stands for a size such as A3B."""
    can: frozenset[Capability] = frozenset()
    cannot: frozenset[Capability] = frozenset()
    context: int | None = None
    family: str | None = None
    native: str | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One row: how the family is recognised and what its models can do."""

    name: str
    match: tuple[tuple[str, ...], ...]
    can: frozenset[Capability]
    provider: str | None = None
    context: int | None = None
    bare_is_base: bool = False
    later: str | None = None
    """Name of generations that have no row of their own, `qwen{}`: a newer one can what all of them can."""
    native: str | None = None
    """Quantisation in which its provider publishes the weights, said by no word in the name."""
    variants: tuple[Variant, ...] = ()
    sizes: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    """Size as written in the name to billions (total, active), where the writing means something else."""


@dataclass(frozen=True, slots=True)
class FamilyTable:
    """`families.yaml`, checked."""

    families: tuple[Family, ...] = ()
    providers: Mapping[str, str] = field(default_factory=dict)
    roles: tuple[tuple[Capability, frozenset[str]], ...] = ()
    """In the order of precedence."""
    words: Mapping[str, frozenset[Capability]] = field(default_factory=dict)
    by_first: Mapping[str, tuple[tuple[tuple[str, ...], Family], ...]] = field(default_factory=dict)
    """First segment of a match to the matches that begin with it, longest first."""


# -- the answer ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NameFacts:
    """What the name says; None where it says nothing."""

    provider: str | None = None
    family: str | None = None
    base_family: str | None = None
    """The family inside a wrapper's name: `llama-3.1` in Hermes-3-Llama-3.1-8B."""
    version: str | None = None
    parameters: int | None = None
    active_parameters: int | None = None
    parameters_estimated: bool = False
    """Worked out (8x7B) rather than written."""
    quantization: str | None = None
    quantization_source: str = "name"
    context: int | None = None
    context_source: str = "name"
    stage: str | None = None
    """`instruct`, `base` or `reasoning`."""
    capabilities: frozenset[Capability] | None = None
    is_pooling: bool = False
    """It embeds, reranks or classifies: said by a word of its own or by its family."""


_POOLING = frozenset({Capability.EMBED, Capability.RERANK, Capability.CLASSIFY})
_REMADE = frozenset({Capability.EMBED, Capability.RERANK, Capability.TRANSCRIBE, Capability.SPEAK})
_CHATS_OF_PICTURES = frozenset({Capability.GENERATE, Capability.VISION})
_CHAT_ONLY = frozenset({Capability.TOOL_USE, Capability.REASONING})


@dataclass(frozen=True, slots=True)
class _Match:
    """A family in a name, and where."""

    row: Family
    start: int
    end: int
    name: str


def parse_name(name: str, table: FamilyTable) -> NameFacts:
    """The facts in a model's id, path, file name or hub URL. Never raises."""
    segments = take_apart(name[:MAX_NAME])
    written = read_sizes(segments)
    found = _family(segments.pieces, table)
    row = found.row if found else None
    has = segments.all | ({"moe"} if written.active is not None else set())
    variants = (
        tuple(variant for variant in row.variants if any(words <= has for words in variant.has))
        if row
        else ()
    )
    stage = _stage(segments, row, table)
    sizes = _sizes(segments, written, row)
    capabilities = _capabilities(segments, has, stage, row=row, variants=variants, table=table)
    is_pooling = bool(capabilities and capabilities & _POOLING)
    # An embedder or recogniser made of a chat family was trained on other lengths than that.
    is_remade = row is not None and bool((capabilities or frozenset()) & _REMADE - row.can)
    context, context_source = _context(
        segments, None if is_remade else row, () if is_remade else variants, capabilities
    )
    quantization, quantization_source = _quantization(segments, row, variants, table)
    return NameFacts(
        provider=(row.provider if row else None) or table.providers.get(segments.org),
        family=_family_name(found, variants),
        base_family=_base_family(segments.pieces, found, table),
        version=_version(segments, found),
        parameters=sizes.total,
        active_parameters=sizes.active,
        parameters_estimated=sizes.is_estimate,
        quantization=quantization,
        quantization_source=quantization_source,
        context=context,
        context_source=context_source,
        stage=None if is_pooling else stage,
        capabilities=capabilities,
        is_pooling=is_pooling,
    )


# -- family and version ----------------------------------------------------------------------------

_GENERATION = re.compile(r"[vkm]?([1-9]\d?(?:\.\d{1,2})?[a-z]?)")
_YEAR = re.compile(r"20\d\d")
_VERSION_WORD = re.compile(r"v(\d{1,2}(?:\.\d{1,2}){0,2})")


def _family(pieces: tuple[str, ...], table: FamilyTable, *, start: int = 0) -> _Match | None:
    """The family whose name begins first from *start* on; of several there, the one that says most."""
    for place in range(start, len(pieces)):
        found = _family_at(pieces, place, table)
        if found is None:
            continue
        following = _family_at(pieces, found.end, table)
        if following and found.row.later and found.name == found.row.name:
            # `Qwen_Qwen3-8B`: the house is written before the model.
            return following if following.row.provider == found.row.provider else found
        return found
    return None


def _family_at(pieces: tuple[str, ...], place: int, table: FamilyTable) -> _Match | None:
    for pattern, row in table.by_first.get(pieces[place], ()) if place < len(pieces) else ():
        end = place + len(pattern)
        if pieces[place:end] == pattern:
            return _Match(row, place, end, _later(row, pieces[end : end + 1]) or row.name)
    return None


def _later(row: Family, following: tuple[str, ...]) -> str | None:
    if row.later is None or not following or _generation(following[0]) is None:
        return None
    return row.later.format(following[0])


def _generation(piece: str) -> str | None:
    """`2.5`, `4`, `3n`, or what follows the letter of `v3.1` and `k2`; None for sizes, dates and words."""
    match = _GENERATION.fullmatch(piece)
    return match[1] if match and match[1][-1] not in "bkmt" else None


def _family_name(found: _Match | None, variants: tuple[Variant, ...]) -> str | None:
    renamed = [variant.family for variant in variants if variant.family]
    return renamed[-1] if renamed else found.name if found else None


def _base_family(pieces: tuple[str, ...], found: _Match | None, table: FamilyTable) -> str | None:
    inner = _family(pieces, table, start=found.end) if found else None
    return inner.name if inner and inner.row is not (found.row if found else None) else None


def _version(segments: Segments, found: _Match | None) -> str | None:
    """The generation, as in the family's name or right after it, else a word such as `v0.3`."""
    pieces = segments.pieces[found.start + 1 : found.end + 1] if found else ()
    said = next((number for piece in pieces if (number := _generation(piece)) is not None), None)
    if found and said and _YEAR.fullmatch("".join(segments.pieces[found.end + 1 : found.end + 2])):
        said = None  # command-r7b-12-2024: a month
    return said or next((m[1] for word in segments.words if (m := _VERSION_WORD.fullmatch(word))), None)


# -- capabilities ----------------------------------------------------------------------------------

_SAYS_CHAT = frozenset({"instruct", "chat"})


def _capabilities(
    segments: Segments,
    has: frozenset[str],
    stage: str | None,
    *,
    row: Family | None,
    variants: tuple[Variant, ...],
    table: FamilyTable,
) -> frozenset[Capability] | None:
    added = _added(segments, table)
    can = set(row.can) if row is not None else set()
    for variant in variants:
        can = (can | variant.can) - variant.cannot
    role = _role(segments.org, has, table)
    if role is not None:
        # A family of embedders, rerankers or recognisers knows better than the word what it takes in.
        takes = can if role in can else added
        return (
            frozenset({role})
            | (takes & {Capability.VISION, Capability.AUDIO})
            | (added & {Capability.VISION})
        )
    if row is None:
        says = added or (_SAYS_CHAT & has)
        return frozenset({Capability.GENERATE, *added}) if says else None
    if can & _POOLING:
        return frozenset(can | (added & {Capability.VISION}))
    if Capability.GENERATE in can:
        can |= added
    return frozenset(can - _CHAT_ONLY if stage == "base" else can) or None


def _added(segments: Segments, table: FamilyTable) -> frozenset[Capability]:
    added: set[Capability] = set()
    words = segments.words
    for before, word in zip(("", *words), words, strict=False):
        if before not in ("non", "no"):
            added |= table.words.get(word, frozenset())
    for piece in (set(segments.pieces) | segments.endings) - set(words):  # `vl2`, `vision2`, `monkeyocr`
        added |= table.words.get(piece, frozenset())
    return frozenset(added)


def _role(org: str, has: frozenset[str], table: FamilyTable) -> Capability | None:
    if org == "cross-encoder":
        return Capability.CLASSIFY if "nli" in has else Capability.RERANK
    for capability, words in table.roles:
        if words & has:
            return capability
    return Capability.EMBED if org == "sentence-transformers" else None


_STAGES = {
    **dict.fromkeys(("thinking", "think", "reasoning", "reasoner"), "reasoning"),
    **dict.fromkeys(("instruct", "it", "chat", "sft", "dpo"), "instruct"),
    **dict.fromkeys(("base", "pretrain", "pretrained"), "base"),
}
_PRETRAINED_BY = {"Google": "pt"}
"""Google's `-pt` is pre-trained; Baidu's is PyTorch."""


_REPUBLISH = frozenset(
    {"mlx-community", "unsloth", "thebloke", "bartowski", "lmstudio-community", "casperhansen", "ggml-org"}
    | {"neuralmagic", "redhatai", "nousresearch", "huggyllama"}
)
"""Organisations that convert and quantise what others publish, under its name."""


def _stage(segments: Segments, row: Family | None, table: FamilyTable) -> str | None:
    words = segments.words
    negated = {word for before, word in pairwise(words) if before in ("non", "no")}
    said = {_STAGES[word] for word in words if word in _STAGES and word not in negated}
    if row is not None and _PRETRAINED_BY.get(row.provider or "") in words:
        said.add("base")
    for stage in ("reasoning", "instruct", "base"):
        if stage in said:
            return stage
    # Without an organisation it is a name of Ollama's, whose bare names are the instructed models; and who
    # tunes another house's base model need not say for what.
    if row is None or not row.bare_is_base or segments.tag:
        return None
    own = table.providers.get(segments.org) == row.provider or segments.org in _REPUBLISH
    return "base" if own else None


# -- numbers ---------------------------------------------------------------------------------------


def _sizes(segments: Segments, written: Sizes, row: Family | None) -> Sizes:
    """What is written, corrected where the family means something else by it (17B-16E, 8x7B, E2B, 1B-7B)."""
    joined = "-" + "-".join(segments.words) + "-"
    for size, (total, active) in row.sizes.items() if row else ():
        if f"-{size}-" in joined:
            return Sizes(round(total * _BILLION), round(active * _BILLION) if active else None)
    return written


def _context(
    segments: Segments,
    row: Family | None,
    variants: tuple[Variant, ...],
    capabilities: frozenset[Capability] | None,
) -> tuple[int | None, str]:
    """(tokens, who says so): a word in the name, else the variant's, else the family's."""
    said = read_context(segments)
    given = [variant for variant in variants if variant.context is not None]
    if said is not None:
        exact = next((variant.context for variant in given if {said[0]} in variant.has), None)
        return exact or said[1], "name"
    context = given[-1].context if given else row.context if row else None
    source = "name (its family)"
    if context is None and "vl" in segments.all and (capabilities or frozenset()) >= _CHATS_OF_PICTURES:
        return _VL_CONTEXT, "name (a vision-language model takes at least this)"
    return context, source if context is not None else "name"


def _quantization(
    segments: Segments, row: Family | None, variants: tuple[Variant, ...], table: FamilyTable
) -> tuple[str | None, str]:
    said = read_quantization(segments)
    if said is not None or row is None:
        return said, "name"
    native = next((variant.native for variant in reversed(variants) if variant.native), row.native)
    native = None if native == "none" else native
    own = table.providers.get(segments.org) == row.provider and row.provider is not None
    # Others republish in any precision: only of its own provider the silence means what it published.
    return (native, "name (as its provider publishes it)") if own and native else (None, "name")
