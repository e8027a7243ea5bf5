"""The header of GGUF files, whole, broken and hostile."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.capability import Capability
from registry.checkpoint_reader import read_checkpoint
from registry.footprint import KvShape
from registry.gguf import read_gguf
from tests.support.gguf_files import write_gguf

C = Capability
QWEN3 = {
    "general.architecture": "qwen3",
    "general.license": "apache-2.0",
    "general.file_type": 15,
    "qwen3.context_length": 40960,
    "qwen3.block_count": 36,
    "qwen3.embedding_length": 4096,
    "qwen3.attention.head_count": 32,
    "qwen3.attention.head_count_kv": 8,
    "qwen3.attention.key_length": 128,
    "tokenizer.ggml.tokens": ["a", "b"] * 50,
    "tokenizer.ggml.scores": [0.5] * 5000,
    "tokenizer.chat_template": "{% if tools %}<tool_call>{% endif %}{% if enable_thinking %}{% endif %}",
}


def test_a_header_says_what_the_model_is(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", QWEN3, {"a.weight": (4096, 100), "b.weight": (64,)})
    found = read_gguf(path)
    assert found.problem is None
    assert found.yes == {C.GENERATE, C.TOOL_USE, C.REASONING}
    assert (found.context_length, found.context_source) == (40960, "m.gguf qwen3.context_length")
    assert (found.quantization, found.weight_format, found.license) == ("gguf-q4_k_m", "gguf", "apache-2.0")
    assert (found.parameters, found.size_bytes) == (409664, path.stat().st_size)
    assert found.kv == KvShape(36, 8, 128)
    assert found.template is not None
    assert "tools:tool_call_tags" in found.template


def test_a_folder_of_gguf_files_is_what_the_first_says(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m-Q4_K_M.gguf", QWEN3)
    write_gguf(tmp_path / "mmproj-f16.gguf", {"general.architecture": "clip"})
    assert read_checkpoint(tmp_path).context_length == 40960


def test_layers_of_a_hybrid_without_heads_keep_nothing(tmp_path: Path) -> None:
    fields = {**QWEN3, "qwen3.attention.head_count_kv": [0, 0, 0, 8] * 9}
    assert read_gguf(write_gguf(tmp_path / "m.gguf", fields)).kv == KvShape(9, 8, 128)


@pytest.mark.parametrize(("pooling", "role"), [(1, C.EMBED), (4, C.RERANK)])
def test_an_encoder_embeds_or_reranks(tmp_path: Path, pooling: int, role: C) -> None:
    fields = {"general.architecture": "bert", "bert.pooling_type": pooling, "bert.context_length": 512}
    found = read_gguf(write_gguf(tmp_path / "m.gguf", fields))
    assert (found.yes, found.role_is_certain) == (frozenset({role}), True)


def test_a_projector_is_no_model(tmp_path: Path) -> None:
    found = read_gguf(write_gguf(tmp_path / "mmproj.gguf", {"general.architecture": "clip"}))
    assert found.problem == "a vision projector and not a model: it belongs to one"


def test_parts_are_counted_together_and_a_missing_one_is_named(tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "m-00001-of-00002.gguf", {**QWEN3, "split.count": 2})
    assert read_gguf(first).problem == (
        "m-00001-of-00002.gguf is a partial download: m-00002-of-00002.gguf missing"
    )
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"x" * 100)
    found = read_gguf(first)
    assert (found.problem, found.size_bytes) == (None, first.stat().st_size + 100)
    assert found.parameters is None


HEAD = b"GGUF" + struct.pack("<I", 3)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends inside its header"),
        (b"PK\x03\x04", "is no GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "has GGUF version 9"),
        (HEAD + struct.pack("<QQ", 0, 2**60), "claims to have millions of entries"),
        (HEAD + struct.pack("<QQ", 2**60, 0), "claims to have millions of entries"),
        (HEAD + struct.pack("<QQQ", 0, 1, 2**62), "has a header of more than 64 MiB"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<I", 77), "unknown type 77"),
        (
            HEAD + struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, 2**50),
            "vocabulary has no end",
        ),
        (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 9, 1), "an array of arrays"),
        (HEAD + struct.pack("<QQQ", 1, 0, 1) + b"t" + struct.pack("<I", 99), "more than eight dimensions"),
    ],
)
def test_a_broken_header_is_a_named_problem(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    found = read_gguf(path)
    assert found.problem is not None
    assert says in found.problem
    assert found.size_bytes == len(data)


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    assert read_gguf(tmp_path / "none.gguf").problem == "none.gguf cannot be read: No such file or directory"


@given(st.binary(max_size=200))
def test_no_header_raises(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + data)
    read_gguf(path)


KEYS = st.sampled_from(sorted({*QWEN3, "split.count", "qwen3.pooling_type", "general.name"}))
VALUES = (
    st.text(max_size=5) | st.integers(0, 2**32 - 1) | st.booleans() | st.lists(st.integers(0, 9), max_size=4)
)


@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_no_meaning_raises(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, object]) -> None:
    found = read_gguf(write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", fields))
    assert found.weight_format == "gguf"
