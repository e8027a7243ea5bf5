"""Reads the header of a GGUF file: what the model is, never its weights.

The `gguf` package maps every tensor and wants numpy; what is asked here is the key-value part and the list
of tensors at the start of a file. Everything is bounded, and whatever is odd is a problem and no exception.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from registry.capability import Capability
from registry.chat_template import mentions_thinking, mentions_tools, template_features
from registry.checkpoint import Checkpoint
from registry.footprint import KvShape

MAX_HEADER_BYTES: Final = 64 * 2**20
"""The largest vocabularies, with their merges, take 12 MB."""
MAX_ENTRIES: Final = 100_000
"""Keys, and tensors: real files have some fifty and some two thousand."""
MAX_STRING: Final = 2**20
MAX_PARTS: Final = 1000
"""Files of one model."""

_MAGIC: Final = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_KEPT_NUMBERS: Final = 4096
"""Numbers of an array that are kept: heads per layer, not the scores of a vocabulary."""

_FILE_TYPES: Final = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s",
    12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k",
    19: "iq2_xxs", 20: "iq2_xs", 21: "q2_k_s", 22: "iq3_xs", 23: "iq3_xxs", 24: "iq1_s", 25: "iq4_nl",
    26: "iq3_s", 27: "iq3_m", 28: "iq2_s", 29: "iq2_m", 30: "iq4_xs", 31: "iq1_m", 32: "bf16",
    36: "tq1_0", 37: "tq2_0", 38: "mxfp4",
}  # fmt: skip
"""general.file_type, as llama.cpp numbers them."""

_ENCODERS: Final = (
    "bert",
    "nomic-bert",
    "nomic-bert-moe",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "t5encoder",
)
_RANK_POOLING: Final = 4
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class _BadHeaderError(Exception):
    """What is wrong, for `problem`."""


def read_gguf(path: Path) -> Checkpoint:
    """What the file (of several parts: the first) says. Broken or not complete: `problem`."""
    size: int | None = None
    try:
        size = _size_of_all(path)
        with path.open("rb") as file:
            fields, parameters = _Reader(file).read()
    except OSError as error:
        return _broken(size, f"{path.name} cannot be read: {error.strerror or error}")
    except _BadHeaderError as bad:
        return _broken(size, f"{path.name} {bad}")
    return _interpret(fields, parameters=parameters, size_bytes=size, name=path.name)


def _broken(size: int | None, problem: str) -> Checkpoint:
    return Checkpoint(size_bytes=size, weight_format="gguf", problem=problem)


def _size_of_all(path: Path) -> int:
    match = _PART.search(path.name)
    if match is None:
        return path.stat().st_size
    total = 0
    for number in range(1, min(int(match[2]), MAX_PARTS) + 1):
        part = path.with_name(f"{path.name[: match.start()]}-{number:05}-of-{match[2]}.gguf")
        try:
            total += part.stat().st_size
        except OSError:
            raise _BadHeaderError(f"is a partial download: {part.name} missing") from None
    return total


class _Reader:
    """The header, read forwards once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._read = 0

    def read(self) -> tuple[Mapping[str, Any], int | None]:
        """(key-value pairs, parameters counted over the tensors of this file)."""
        if self._bytes(4) != _MAGIC:
            raise _BadHeaderError("is no GGUF file")
        version = self._number("I")
        if version not in (2, 3):
            raise _BadHeaderError(f"has GGUF version {version}, which is not known")
        tensors, pairs = self._count("Q"), self._count("Q")
        fields = {self._text(): self._value(self._number("I")) for _ in range(pairs)}
        return fields, self._parameters(tensors)

    def _parameters(self, tensors: int) -> int | None:
        total = 0
        for _ in range(tensors):
            self._text()
            dimensions = self._number("I")
            if dimensions > 8:
                raise _BadHeaderError("is damaged: a tensor has more than eight dimensions")
            count = 1
            for _ in range(dimensions):
                count *= self._number("Q")
            total += count
            self._bytes(4 + 8)  # its type and where it lies
        return total if 0 < total < 10**14 else None

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._number(_scalar(kind))
        inner, length = self._number("I"), self._number("Q")
        if inner == _STRING:
            for _ in range(self._fits(length)):
                self._skip(self._number("Q"))
            return None
        if inner == _ARRAY:
            raise _BadHeaderError("is damaged: an array of arrays")
        code = _scalar(inner)
        width = struct.calcsize(code)
        if length > _KEPT_NUMBERS:
            self._skip(length * width)
            return None
        return list(struct.unpack(f"<{length}{code}", self._bytes(length * width)))

    def _count(self, code: str) -> int:
        count = int(self._number(code))
        if count > MAX_ENTRIES:
            raise _BadHeaderError("is damaged: it claims to have millions of entries")
        return count

    def _fits(self, length: int) -> int:
        if length * 8 > MAX_HEADER_BYTES:
            raise _BadHeaderError("is damaged: its vocabulary has no end")
        return length

    def _text(self) -> str:
        length = self._number("Q")
        if length > MAX_STRING:
            self._skip(length)
            return ""
        return self._bytes(length).decode("utf-8", "replace")

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack(f"<{code}", self._bytes(struct.calcsize(code)))
        return value

    def _skip(self, length: int) -> None:
        self._bytes(length)

    def _bytes(self, length: int) -> bytes:
        self._read += length
        if self._read > MAX_HEADER_BYTES:
            raise _BadHeaderError(f"has a header of more than {MAX_HEADER_BYTES // 2**20} MiB")
        data = self._file.read(length)
        if len(data) < length:
            raise _BadHeaderError("ends inside its header: damaged or a partial download")
        return data


def _scalar(kind: int) -> str:
    code = _SCALARS.get(kind)
    if code is None:
        raise _BadHeaderError(f"is damaged: a value of the unknown type {kind}")
    return code


# -- meaning ---------------------------------------------------------------------------------------


def _interpret(
    fields: Mapping[str, Any], *, parameters: int | None, size_bytes: int, name: str
) -> Checkpoint:
    architecture = _text(fields.get("general.architecture"))
    own = _Own(fields, architecture or "")
    yes, no = _capabilities(fields, own, architecture)
    template = _text(fields.get("tokenizer.chat_template"))
    kind = (
        _FILE_TYPES.get(_whole(fields.get("general.file_type")) or -1)
        if "general.file_type" in fields
        else None
    )
    if fields.get("general.file_type") == 0:
        kind = "f32"
    is_part = _whole(fields.get("split.count")) not in (None, 0, 1)
    return Checkpoint(
        yes=yes,
        no=no,
        role_is_certain=not yes & {Capability.GENERATE},
        context_length=own.whole("context_length"),
        context_source=f"{name} {architecture}.context_length",
        size_bytes=size_bytes,
        parameters=None if is_part else parameters,
        quantization=f"gguf-{kind}" if kind else "gguf",
        weight_format="gguf",
        architecture=architecture,
        model_type=architecture,
        kv=_kv_shape(own),
        has_chat_template=template is not None,
        license=_text(fields.get("general.license")),
        template=template_features(template) if template is not None else None,
        problem="a vision projector and not a model: it belongs to one" if architecture == "clip" else None,
    )


class _Own:
    """The keys that begin with the architecture's name."""

    def __init__(self, fields: Mapping[str, Any], architecture: str) -> None:
        self._fields = fields
        self._prefix = architecture

    def get(self, key: str) -> Any:
        return self._fields.get(f"{self._prefix}.{key}")

    def whole(self, key: str) -> int | None:
        return _whole(self.get(key))


def _capabilities(
    fields: Mapping[str, Any], own: _Own, architecture: str | None
) -> tuple[frozenset[Capability], frozenset[Capability]]:
    pooling = own.get("pooling_type")
    if architecture in _ENCODERS or pooling:
        role = Capability.RERANK if pooling == _RANK_POOLING else Capability.EMBED
        return frozenset({role}), frozenset(Capability) - {role}
    if architecture is None or architecture == "clip":
        return frozenset(), frozenset()
    yes, no = {Capability.GENERATE}, set[Capability]()
    template = _text(fields.get("tokenizer.chat_template"))
    if template is not None:
        (yes if mentions_tools(template) else no).add(Capability.TOOL_USE)
        thinks = mentions_thinking(template)
        if thinks is not None:
            (yes if thinks else no).add(Capability.REASONING)
    return frozenset(yes), frozenset(no)


def _kv_shape(own: _Own) -> KvShape | None:
    layers, heads = own.whole("block_count"), own.whole("attention.head_count")
    given = own.get("attention.head_count_kv")
    per_layer = [n for n in given if isinstance(n, int)] if isinstance(given, list) else None
    if layers is None:
        return None
    kv_heads = max(per_layer, default=0) if per_layer is not None else _whole(given) or heads
    width = own.whole("attention.key_length")
    if width is None and heads:
        width = (own.whole("embedding_length") or 0) // heads
    if not kv_heads or not width:
        return None
    # Layers of a hybrid that keep a state instead have no heads.
    full = sum(1 for count in per_layer if count) if per_layer is not None else layers
    return KvShape(full, kv_heads, width, 2, window=0)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**9:
        return None
    return value
