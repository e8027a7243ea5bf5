"""What a model's name says about it. Pure: the table of families is a value (`registry.families` reads it).

Names are read by segments, never by bare substrings: `gemma-4bit` is Gemma in 4 bits and not Gemma 4, `11b`
is not `1b`, `marvl` sees nothing. A name is the weakest source of facts; everything here may be None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.capability import Capability

MAX_NAME = 512
"""Longer names are cut: the hub allows 96 for a repository, and requests bring any length."""

_MILLION, _BILLION, _TRILLION = 10**6, 10**9, 10**12
_VL_CONTEXT = 32768
"""What every vision-language model takes at least, since an image alone costs thousands of tokens."""


# -- the table -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variant:
    """What further words in the name change."""

    has: frozenset[str]
    can: frozenset[Capability] = frozenset()
    cannot: frozenset[Capability] = frozenset()
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One row: how the family is recognised and what its models can do."""

    name: str
    match: tuple[tuple[str, ...], ...]
    can: frozenset[Capability]
    provider: str | None = None
    context: int | None = None
    bare_is_base: bool = False
    variants: tuple[Variant, ...] = ()
    sizes: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    """Size as written in the name to billions (total, active)."""


@dataclass(frozen=True, slots=True)
class FamilyTable:
    """`families.yaml`, checked."""

    families: tuple[Family, ...] = ()
    providers: Mapping[str, str] = field(default_factory=dict)
    roles: tuple[tuple[Capability, frozenset[str]], ...] = ()
    """In the order of precedence."""
    words: Mapping[str, frozenset[Capability]] = field(default_factory=dict)


# -- the answer ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NameFacts:
    """What the name says; None where it says nothing."""

    provider: str | None = None
    family: str | None = None
    parameters: int | None = None
    active_parameters: int | None = None
    quantization: str | None = None
    context: int | None = None
    stage: str | None = None
    """`instruct`, `base` or `reasoning`."""
    capabilities: frozenset[Capability] | None = None
    is_pooling: bool = False
    """It embeds, reranks or classifies: said by a word of its own or by its family."""


_POOLING = frozenset({Capability.EMBED, Capability.RERANK, Capability.CLASSIFY})
_CHAT_ONLY = frozenset({Capability.TOOL_USE, Capability.REASONING})


def parse_name(name: str, table: FamilyTable) -> NameFacts:
    """The facts in a model's id, path or file name. Never raises."""
    org, base, tag = _take_apart(name[:MAX_NAME])
    words = _words(base)
    pieces = [piece for word in words for piece in _split_version(word)]
    family = _family(pieces, table)
    has = frozenset(words) | frozenset(pieces)
    stage = _stage(words, family)
    sizes = _sizes(words, family)
    capabilities = _capabilities(org, words, has, stage, family, table)
    return NameFacts(
        provider=(family.provider if family else None) or table.providers.get(org),
        family=family.name if family else None,
        parameters=sizes[0],
        active_parameters=sizes[1],
        quantization=_quantization(org, words, tag),
        context=_context(words, has, family, capabilities),
        stage=stage,
        capabilities=capabilities,
        is_pooling=bool(capabilities and capabilities & _POOLING),
    )


# -- segments --------------------------------------------------------------------------------------

_SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)(?:/snapshots/[^/]*)?/?$")
_GGUF_PART = re.compile(r"-\d{5}-of-\d{5}$")
_VERSIONED = re.compile(r"([a-z]{2,})(\d+(?:\.\d+)*[a-z]?)")


def _take_apart(name: str) -> tuple[str, str, str]:
    """(organisation, name, tag after a colon), lower case; a snapshot's path gives its repository."""
    text = name.strip().lower().replace("\\", "/")
    snapshot = _SNAPSHOT.search(text)
    if snapshot:
        text = f"{snapshot[1]}/{snapshot[2]}"
    rest, _, base = text.rstrip("/").rpartition("/")
    org = rest.rpartition("/")[2]
    base, _, tag = base.partition(":")
    if base.endswith(".gguf"):
        base = _GGUF_PART.sub("", base.removesuffix(".gguf"))
    return org, base.partition("@")[0], tag


def _words(base: str) -> list[str]:
    # An underscore between digits is a point (Llama-3_3, MiniCPM-V-4_5), except in Q8_0.
    text = re.sub(r"(?<!q)(\d)_(?=\d)", r"\1.", base)
    text = re.sub(r"\.(?!\d)|(?<!\d)\.", "-", text)
    return [word for word in re.split(r"[^a-z0-9.]+", text) if word]


def _split_version(word: str) -> tuple[str, ...]:
    """("qwen", "2.5") for `qwen2.5`; words such as `v3`, `k2` or `4bit` stay whole."""
    match = _VERSIONED.fullmatch(word)
    return (match[1], match[2]) if match else (word,)


def _family(pieces: list[str], table: FamilyTable) -> Family | None:
    best: tuple[int, int] | None = None
    found: Family | None = None
    for family in table.families:
        for pattern in family.match:
            length = len(pattern)
            for start in range(len(pieces) - length + 1):
                rank = (start, -length)
                if best is not None and rank >= best:
                    break
                if tuple(pieces[start : start + length]) == pattern:
                    best, found = rank, family
                    break
    return found


# -- capabilities ----------------------------------------------------------------------------------


def _capabilities(
    org: str,
    words: list[str],
    has: frozenset[str],
    stage: str | None,
    family: Family | None,
    table: FamilyTable,
) -> frozenset[Capability] | None:
    added: set[Capability] = set()
    for index, word in enumerate(words):
        if index == 0 or words[index - 1] not in ("non", "no"):
            added |= table.words.get(word, frozenset())
    for piece in has - set(words):  # `vl2`, `vision2`
        added |= table.words.get(piece, frozenset())
    role = _role(org, has, table)
    if role is not None:
        return frozenset({role}) | (added & {Capability.VISION})
    if family is None:
        return frozenset({Capability.GENERATE, *added}) if added else None
    can = set(family.can)
    for variant in family.variants:
        if variant.has & has:
            can = (can | variant.can) - variant.cannot
    if can & _POOLING:
        return frozenset(can | (added & {Capability.VISION}))
    if Capability.GENERATE in can:
        can |= added
    return frozenset(can - _CHAT_ONLY if stage == "base" else can)


def _role(org: str, has: frozenset[str], table: FamilyTable) -> Capability | None:
    if org == "cross-encoder":
        return Capability.RERANK
    for capability, words in table.roles:
        if words & has:
            return capability
    return Capability.EMBED if org == "sentence-transformers" else None


_STAGES = {
    **dict.fromkeys(("thinking", "think", "reasoning", "reasoner"), "reasoning"),
    **dict.fromkeys(("instruct", "it", "chat", "sft", "dpo"), "instruct"),
    **dict.fromkeys(("base", "pt", "pretrain", "pretrained"), "base"),
}


def _stage(words: list[str], family: Family | None) -> str | None:
    said = {_STAGES[word] for word in words if word in _STAGES}
    for stage in ("reasoning", "instruct", "base"):
        if stage in said:
            return stage
    return "base" if family is not None and family.bare_is_base else None


# -- sizes -----------------------------------------------------------------------------------------

_SIZE = re.compile(r"r?(\d{1,5}(?:\.\d{1,3})?)([bmt])")
_SPLIT_SIZE = re.compile(r"(\d{1,3})b(\d)")
_ACTIVE = re.compile(r"a(\d{1,4}(?:\.\d{1,3})?)([bm])")
_EXPERTS = re.compile(r"(\d{1,3})x(\d{1,4}(?:\.\d{1,3})?)b")
_EXPERT_COUNT = re.compile(r"\d{1,4}e")
_EFFECTIVE = re.compile(r"e(\d{1,3}(?:\.\d{1,3})?)b")
_CONTEXT_MILLIONS = ("1m", "2m", "4m", "10m")
_UNITS = {"m": _MILLION, "b": _BILLION, "t": _TRILLION}


def _sizes(words: list[str], family: Family | None) -> tuple[int | None, int | None]:
    """(parameters, active parameters)."""
    if family is not None:
        joined = "-" + "-".join(words) + "-"
        for written, (total, active) in family.sizes.items():
            if f"-{written}-" in joined:
                return round(total * _BILLION), round(active * _BILLION) if active else None
    totals: list[int] = []
    trillions: list[int] = []
    active_size: int | None = None
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else ""
        if match := _SIZE.fullmatch(word):
            value = _number(match[1], _UNITS[match[2]])
            if _EXPERT_COUNT.fullmatch(following):
                active_size = value  # 17B-16E: 17 active, 16 experts
            elif match[2] == "t":
                trillions.append(value)  # often training tokens: believed only when nothing else is there
            elif word not in _CONTEXT_MILLIONS:
                totals.append(value)
        elif match := _SPLIT_SIZE.fullmatch(word):
            totals.append(_number(f"{match[1]}.{match[2]}", _BILLION))
        elif match := _EXPERTS.fullmatch(word):
            # Experts share the rest, so the product is an upper bound: right for memory.
            totals.append(int(match[1]) * _number(match[2], _BILLION))
        elif (match := _ACTIVE.fullmatch(word)) or (match := _EFFECTIVE.fullmatch(word)):
            active_size = _number(match[1], _UNITS[match[2]] if match.re is _ACTIVE else _BILLION)
    sizes = totals or trillions
    return (max(sizes) if sizes else None), active_size


def _number(text: str, unit: int) -> int:
    return round(float(text) * unit)


# -- context ---------------------------------------------------------------------------------------

_CONTEXT = re.compile(r"([1-9]\d{0,4})(k|m)")


def _context(
    words: list[str],
    has: frozenset[str],
    family: Family | None,
    capabilities: frozenset[Capability] | None,
) -> int | None:
    context = family.context if family else None
    fixed = bool(family and any("vl" in pattern for pattern in family.match))
    for variant in family.variants if family else ():
        if variant.has & has and variant.context is not None:
            context, fixed = variant.context, True
    said = None if fixed else _said_context(words)
    if said is not None:
        return said
    is_vl = "vl" in has and capabilities is not None and Capability.VISION in capabilities
    if is_vl and not fixed:
        return max(context or 0, _VL_CONTEXT)
    return context


def _said_context(words: list[str]) -> int | None:
    for word in words[1:]:
        match = _CONTEXT.fullmatch(word)
        if match is None:
            continue
        value = int(match[1])
        if match[2] == "m":
            if word in _CONTEXT_MILLIONS:
                return value * 1024 * 1024
            continue
        if value <= 4096:
            # 128k is 131072, 200k is 200000: a power of two is meant in binary.
            return value * 1024 if value & (value - 1) == 0 else value * 1000
    return None


# -- quantization ----------------------------------------------------------------------------------

_GGUF = re.compile(r"(?:ud-)?(i?q\d(?:_[0-9a-z]+)*)")
_METHODS = ("gptq", "awq", "bnb", "hqq", "exl2", "autoround", "nvfp4", "mxfp4", "mxfp8", "fp8", "fp4")
_BITS = re.compile(r"[2-8]bit|int[2-8]|w\d{1,2}a\d{1,2}|q[2-8]|bf16|fp16|f16|fp32")


def _quantization(org: str, words: list[str], tag: str) -> str | None:
    gguf = _GGUF.fullmatch(tag) or (_GGUF.fullmatch(_gguf_suffix(words)) if words else None)
    if gguf and (tag or "gguf" in words or "_" in gguf[1]):
        return f"gguf-{gguf[1]}"
    method = next((word for word in words if word in _METHODS), None)
    bits = next((word for word in words[1:] if _BITS.fullmatch(word)), None)
    if bits and bits.endswith("bit") and (org == "mlx-community" or "mlx" in words):
        return f"mlx-{bits}"
    if method and bits:
        return f"{method}-{bits}"
    return method or bits or ("gguf" if "gguf" in words else None)


def _gguf_suffix(words: list[str]) -> str:
    """`q4_k_m` out of [..., "q4", "k", "m"]; `_words` has cut it at the underscores."""
    for start in range(len(words) - 1, max(len(words) - 4, 0), -1):
        if re.fullmatch(r"i?q\d(\.\d)?", words[start]):
            return "_".join(words[start:]).replace(".", "_")
    return ""
