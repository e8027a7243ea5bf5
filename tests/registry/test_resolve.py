"""From the name in a request to a model."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.engine import ModelId
from registry.errors import AmbiguousModelError, ModelNotFoundError, RegistryError
from registry.resolve import build_index, contains, resolve_name

IDS = [
    ModelId(name)
    for name in (
        "Qwen/Qwen3-8B",
        "mlx-community/Qwen3-8B-4bit",
        "acme/tiny",
        "other/tiny",
        "bge-m3",
        "repo:Q4_K_M",
        "team/llama@night",
        "Qwen/Qwen2.5-0.5B",
    )
]
INDEX = build_index(IDS, {"gpt-4o-mini": ModelId("Qwen/Qwen3-8B"), "bge-m3": ModelId("acme/tiny")})


def resolve(name: str, *, fuzzy: bool = True) -> str:
    return resolve_name(name, INDEX, fuzzy=fuzzy)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("repo:Q4_K_M", "repo:Q4_K_M"),
        ("team/llama@night", "team/llama@night"),
        ("gpt-4o-mini", "Qwen/Qwen3-8B"),
        ("bge-m3", "bge-m3"),  # an id is never shadowed by an alias
        ("bge-m3:latest", "bge-m3"),
        ("gpt-4o-mini:latest", "Qwen/Qwen3-8B"),
        ("Qwen3-8B-4bit", "mlx-community/Qwen3-8B-4bit"),
    ],
)
def test_exact_names_need_no_guessing(name: str, model: str) -> None:
    assert resolve(name, fuzzy=False) == model


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("qwen/qwen3-8b", "Qwen/Qwen3-8B"),
        ("qwen3-8b", "Qwen/Qwen3-8B"),
        ("GPT-4o-Mini", "Qwen/Qwen3-8B"),
        ("8b-4bit", "mlx-community/Qwen3-8B-4bit"),
        ("llama", "team/llama@night"),
        ("qwen2.5", "Qwen/Qwen2.5-0.5B"),
    ],
)
def test_a_unique_part_is_enough_unless_switched_off(name: str, model: str) -> None:
    assert resolve(name) == model
    with pytest.raises(ModelNotFoundError):
        resolve(name, fuzzy=False)


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("tiny", ("acme/tiny", "other/tiny")),
        ("TINY", ("acme/tiny", "other/tiny")),
        ("qwen3", ("Qwen/Qwen3-8B", "mlx-community/Qwen3-8B-4bit")),
    ],
)
def test_an_ambiguous_name_gives_the_candidates(name: str, candidates: tuple[str, ...]) -> None:
    with pytest.raises(AmbiguousModelError) as refused:
        resolve(name)
    assert refused.value.candidates == candidates
    assert all(candidate in str(refused.value) for candidate in candidates)


def test_a_suffix_is_ambiguous_without_guessing_too() -> None:
    with pytest.raises(AmbiguousModelError):
        resolve("tiny", fuzzy=False)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Qwen/Qwen3-9B", "Qwen/Qwen3-8B"),
        ("bge-m4", "bge-m3"),
        ("qwen3-8", "Qwen/Qwen3-8B"),
        ("gpt-4o", "Qwen/Qwen3-8B"),
    ],
)
def test_an_unknown_name_gives_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean") as refused:
        resolve(name, fuzzy=False)
    assert near in refused.value.candidates


@pytest.mark.parametrize("name", ["", " ", "zzzzzz", "x" * 10_000])
def test_what_is_near_nothing_is_told_where_to_look(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="GET /v1/models") as refused:
        resolve(name)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("name", ["auto", "auto:vision"])
def test_auto_is_reserved(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="reserved"):
        resolve(name)


def test_a_variant_that_is_not_there_names_its_base() -> None:
    with pytest.raises(ModelNotFoundError, match="has no variant 'q8'") as refused:
        resolve("bge-m3:q8")
    assert refused.value.candidates == ("bge-m3",)


@pytest.mark.parametrize(
    ("text", "part", "there"),
    [
        ("qwen3-8b-awq", "qwen3-8b", True),
        ("qwen3-80b", "qwen3-8", False),
        ("model-11b", "1b", False),
        ("qwen3-8b", "qwen", True),
        ("qwen2.5-7b", "qwen2", False),
        ("qwen2.5-7b", "5-7b", False),
        ("tinyllama", "llama", False),
        ("a-1b-x-1b", "1b", True),
    ],
)
def test_parts_are_whole_words(text: str, part: str, there: bool) -> None:
    assert contains(text, part) is there


@given(st.text(max_size=40), st.booleans())
def test_any_name_is_resolved_or_refused(name: str, fuzzy: bool) -> None:
    with contextlib.suppress(RegistryError):
        assert resolve(name, fuzzy=fuzzy) in IDS
