"""The grammar of models' names: segments, sizes, quantisation, context. Pure, and knows no family.

A name is cut at its separators first and everything is then read from whole segments: `11b` is not `1b`,
`4bit` is not version 4, `1025` is a date. What does not fit a rule says nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_MILLION: Final = 10**6
_BILLION: Final = 10**9
_TRILLION: Final = 10**12


# -- segments --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segments:
    """A name, taken apart: all lower case."""

    org: str = ""
    words: tuple[str, ...] = ()
    """Between separators: `qwen2.5`, `vl`, `7b`, `instruct`."""
    pieces: tuple[str, ...] = ()
    """The words with versions cut off: `qwen`, `2.5`, `vl`, `7b`, `instruct`."""
    gguf: str | None = None
    """The quantisation as llama.cpp writes it: `q4_k_m`."""
    is_gguf: bool = False
    tag: str = ""
    """What Ollama writes after the colon, when it is no quantisation: `8b`, `latest`."""

    @property
    def all(self) -> frozenset[str]:
        """Words and pieces together, and what kind of model a word ends in."""
        return frozenset(self.words) | frozenset(self.pieces) | self.endings

    @property
    def endings(self) -> frozenset[str]:
        """`ocr` of `monkeyocr`, `tts` of `indextts`, `embed` of `coderankembed`, `coder` of `deepcoder`."""
        found = (_ENDING.fullmatch(word) for word in self.words if word not in _NO_ENDING)
        return frozenset(match[1] for match in found if match)


_SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)(?:/.*)?$")
_NO_ORG_SNAPSHOT = re.compile(r"models--([^/]+)(?:/.*)?$")
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://[^/]*/")
_HOST = re.compile(r"^(?:www\.)?(?:hf\.co|huggingface\.co|modelscope\.cn/models|ollama\.com(?:/library)?)/")
_REVISION = re.compile(r"/(?:tree|resolve|blob)/[^/]+(?=/|$)")
_GGUF_PART = re.compile(r"-\d{5}-of-\d{5}$")
_GGUF_TAG = re.compile(r"(?:ud|i1)?-?((?:i?q|tq)\d(?:_[0-9a-z]+)*)")
_GGUF_END = re.compile(r"[-._](?:ud-|i1-)?((?:iq|q|tq)\d_[0-9a-z]+(?:_[0-9a-z]+)*)(?:[-._]gguf)?$")
_NOT_A_NAME = re.compile(
    r"[0-9a-f]{7,64}|snapshots|main|master|model|weights|ggml-model|gguf|pytorch_model|models"
    r"|summary|files|readme\.md|[a-z_.]+\.json"
)
_WEIGHT_FILE = (".gguf", ".safetensors", ".bin")
_VERSIONED = re.compile(r"([a-z]{2,})(\d+(?:\.\d+)*)([a-z]*)")
_SIZE_AFTER = re.compile(r"(\d)_(?=\d+(?:\.\d+)?[bm](?![a-z0-9]))")
_SPACED = re.compile(r"[a-z]_\d|\d_[a-z]")
_ENDING = re.compile(r"[a-z0-9]+?(asr|tts|ocr|vlm|embed|rerank|reranker|colbert|coder)")
"""The kinds that houses write without a hyphen."""
_NO_ENDING = ("decoder", "encoder", "autoencoder", "recoder", "transcoder", "vocoder", "watts")


def take_apart(name: str) -> Segments:
    """The segments of a hub id, an Ollama or GGUF reference, a path, a cache folder or a URL of the hub."""
    org, base, tag = _locate(name.strip().lower().replace("\\", "/"))
    is_gguf = base.endswith(".gguf")
    base = _GGUF_PART.sub("", _stem(base))
    gguf = None
    if tag and (found := _GGUF_TAG.fullmatch(tag)):
        gguf, tag = found[1], ""
    base = f"{base}-{tag}" if tag else base
    if gguf is None and (found := _GGUF_END.search(base)):
        gguf, base = found[1], base[: found.start()]
    words = _words(base)
    pieces = tuple(piece for word in words for piece in _split_version(word))
    is_gguf = is_gguf or gguf is not None or "gguf" in words
    return Segments(org, words, pieces, gguf, is_gguf=is_gguf, tag=tag)


def _locate(text: str) -> tuple[str, str, str]:
    """(organisation, name, tag): what stands for the model in an address."""
    if snapshot := _SNAPSHOT.search(text) or _NO_ORG_SNAPSHOT.search(text):
        parts = [part for part in snapshot.groups() if part]
    else:
        text = _HOST.sub("", _SCHEME.sub("", text)) if "://" in text or _HOST.match(text) else text
        parts = [part for part in _REVISION.sub("", text).split("/") if part]
    base, tag = "", ""
    while parts:
        base, new = _tagged(parts.pop())
        tag = new or tag
        if _names_something(base) or not parts:
            break
        if quantized := _GGUF_END.search(_GGUF_PART.sub("", _stem(base))):
            tag = quantized[1]
    return (parts[-1] if parts else ""), base, tag


def _tagged(text: str) -> tuple[str, str]:
    base, mark, tag = text.partition(":")
    if not mark:
        base, _, tag = text.partition("@")
    return base, tag.partition("@")[0]


def _names_something(base: str) -> bool:
    """False for a commit, `model.safetensors`, `model-00001-of-00004`: then the folder has the name."""
    return not _NOT_A_NAME.fullmatch(_GGUF_END.sub("", _GGUF_PART.sub("", _stem(base))))


def _stem(base: str) -> str:
    for ending in _WEIGHT_FILE:
        base = base.removesuffix(ending)
    return base


def _words(base: str) -> tuple[str, ...]:
    # An underscore between digits is a point (Llama-3_3, MiniCPM-V-4_5, 1_8b), but a separator before a size
    # where the name uses it as one (qwen3_8b, llama_3_8b).
    if _SPACED.search(base):
        text = _SIZE_AFTER.sub(r"\1-", base)
    else:
        text = re.sub(r"([a-z]\d+(?:\.\d+)?)_(?=\d+(?:\.\d+)?[bm](?![a-z0-9]))", r"\1-", base)
    text = re.sub(r"(?<!q)(\d)_(?=\d)", r"\1.", text)
    text = re.sub(r"\.(?!\d)|(?<!\d)\.", "-", text)
    return tuple(word for word in re.split(r"[^a-z0-9.]+", text) if word)


def _split_version(word: str) -> tuple[str, ...]:
    """("qwen", "2.5", "vl") for `qwen2.5vl`, ("glm", "4.5v") for `glm4.5v`; `v3`, `k2`, `4bit` stay whole."""
    match = _VERSIONED.fullmatch(word)
    if match is None:
        return (word,)
    start, number, rest = match.groups()
    return (start, number, rest) if len(rest) > 1 else (start, number + rest)


# -- sizes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sizes:
    """Parameters as the name writes them; None where it does not."""

    total: int | None = None
    active: int | None = None
    is_estimate: bool = False
    """`8x7B`: the experts share attention, so the total is worked out and not read."""


_SIZE = re.compile(r"r?(\d{1,5}(?:\.\d{1,3})?)([bmt])")
_SPLIT_SIZE = re.compile(r"(\d{1,3})b(\d)")
_ACTIVE = re.compile(r"a(\d{1,4}(?:\.\d{1,3})?)([bm])")
_EXPERTS = re.compile(r"(\d{1,3})x(\d{1,4}(?:\.\d{1,3})?)b")
_EXPERT_COUNT = re.compile(r"\d{1,4}e")
_EFFECTIVE = re.compile(r"e(\d{1,3}(?:\.\d{1,3})?)b")
_WITH_ACTIVE = re.compile(r"(\d{1,4}(?:\.\d{1,3})?)ba(\d{1,3}(?:\.\d{1,3})?)b")
_GLUED = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)b")
_CONTEXT_MILLIONS = ("1m", "2m", "4m", "10m")
_UNITS: Final = {"m": _MILLION, "b": _BILLION, "t": _TRILLION}

EXPERT_SHARE: Final = 0.78
"""Part of a dense model that each further expert copies: 8x7B has 46.7 and 8x22B 141 billion parameters."""


def read_sizes(segments: Segments) -> Sizes:
    """The sizes among the segments: `0.5b`, `350m`, `30b-a3b`, `17b-16e`, `8x7b`, `e4b`, `1b1`, `r7b`."""
    words = segments.words
    totals: list[int] = []
    trillions: list[int] = []
    active: int | None = None
    estimate: float | None = None
    for word, following in zip(words, (*words[1:], ""), strict=False):
        if match := _SIZE.fullmatch(word):
            value = _number(match[1], _UNITS[match[2]])
            if not value:
                continue
            if _EXPERT_COUNT.fullmatch(following):
                active = value  # 17B-16E: 17 active, 16 experts
            elif match[2] == "t":
                trillions.append(value)  # often training tokens: believed only when nothing else is there
            elif word not in _CONTEXT_MILLIONS:
                totals.append(value)
        elif match := _SPLIT_SIZE.fullmatch(word):
            totals.append(_number(f"{match[1]}.{match[2]}", _BILLION))
        elif match := _EXPERTS.fullmatch(word):
            dense = float(match[2])
            estimate = round(dense * (1 + EXPERT_SHARE * (int(match[1]) - 1)), 1)
        elif match := _ACTIVE.fullmatch(word):
            active = _number(match[1], _UNITS[match[2]])
        elif match := _EFFECTIVE.fullmatch(word):
            active = _number(match[1], _BILLION)
        elif match := _WITH_ACTIVE.fullmatch(word):
            totals.append(_number(match[1], _BILLION))
            active = _number(match[2], _BILLION)
    if not totals:
        new = [piece for piece in segments.pieces if piece not in words]
        totals = [_number(match[1], _BILLION) for piece in new if (match := _GLUED.fullmatch(piece))]
    if estimate is not None and not totals:
        return Sizes(_number(str(estimate), _BILLION), active, is_estimate=True)
    sizes = totals or trillions
    return Sizes(max(sizes) if sizes else None, active)


def _number(text: str, unit: int) -> int:
    return round(float(text) * unit)


# -- context ---------------------------------------------------------------------------------------

_CONTEXT = re.compile(r"([1-9]\d{0,4})(k|m)")


def read_context(segments: Segments) -> tuple[str, int] | None:
    """(word, tokens) of a length that the name states: `128k`, `1m`."""
    for word in segments.words[1:]:
        match = _CONTEXT.fullmatch(word)
        if match is None:
            continue
        value = int(match[1])
        if match[2] == "m":
            if word in _CONTEXT_MILLIONS:
                return word, value * 1024 * 1024
        elif value <= 4096:
            return word, _thousands(value)
    return None


def _thousands(value: int) -> int:
    """128k is 131072 and so is 131k, 200k is 200000: what begins a power of two stands for it."""
    if value & (value - 1) == 0:
        return value * 1024
    binary = 1 << (value * 1000).bit_length()
    return binary if binary // 1000 == value else value * 1000


# -- quantization ----------------------------------------------------------------------------------

_METHODS = (
    "gptq", "awq", "bnb", "hqq", "exl2", "exl3", "autoround", "aqlm", "nvfp4", "mxfp4", "mxfp8", "fp8", "fp4",
)  # fmt: skip
_BITS = re.compile(
    r"[1-8]bit|int[2-8]|w\d{1,2}a\d{1,2}|q[2-8]|\d(?:\.\d{1,2})?bpw|bf16|fp16|f16|fp32|f32|16bit"
)
_BITS_AND_MORE = re.compile(r"([1-8]bit)(?:s|gs\d+)")
"""`4bits`, `4bitgs64`."""
_ALIASES: Final = {"f16": "fp16", "f32": "fp32", "bitsandbytes": "bnb", "16bit": "bf16"}
_FLOATS = ("nvfp4", "mxfp4", "mxfp8", "fp8", "fp4")
_MLX_ORGS = ("mlx-community",)


def read_quantization(segments: Segments) -> str | None:
    """`awq-int4`, `mlx-4bit`, `gguf-q4_k_m`, `fp8` …; None: the name says nothing, which proves nothing."""
    if "unquantized" in segments.words:
        return None  # google/gemma-3-4b-it-qat-q4_0-unquantized: trained for what it is not stored in
    if segments.gguf is not None:
        return f"gguf-{segments.gguf}"
    words = [_ALIASES.get(word, _BITS_AND_MORE.sub(r"\1", word)) for word in segments.words[1:]]
    if segments.is_gguf:
        plain = next((word for word in words if _BITS.fullmatch(word) or word == "mxfp4"), None)
        return f"gguf-{plain}" if plain else "gguf"
    method = next((word for word in words if word in _METHODS), None)
    bits = next((word for word in words if _BITS.fullmatch(word)), None)
    is_mlx = segments.org in _MLX_ORGS or "mlx" in segments.all
    if bits and bits.endswith("bit") and is_mlx and method not in _FLOATS:
        return f"mlx-{bits}"
    if method == "fp4" and segments.org == "nvidia":
        return "nvfp4"  # so NVIDIA names them
    if method == "awq" and bits is None:
        return "awq-4bit"  # no kernel reads other widths
    if method and bits:
        return f"{method}-{bits}"
    return method or bits
