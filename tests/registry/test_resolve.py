"""From the name in a request to a model."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.engine import ModelId
from registry.errors import AmbiguousModelError, ModelNotFoundError, RegistryError
from registry.resolve import Named, build_index, contains, resolve_name

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
VARIANTS = {ModelId("Qwen/Qwen3-8B"): frozenset({"thinking", "precise"})}
INDEX = build_index(IDS, {"gpt-4o-mini": ModelId("Qwen/Qwen3-8B"), "bge-m3": ModelId("acme/tiny")}, VARIANTS)


def resolve(name: str, *, fuzzy: bool = True) -> str:
    found = resolve_name(name, INDEX, fuzzy=fuzzy)
    assert not found.variant
    return found.model


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


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("Qwen/Qwen3-8B:thinking", "thinking"),
        ("gpt-4o-mini:precise", "precise"),  # of an alias
        ("Qwen3-8B:thinking", "thinking"),  # of the part after the last slash
        ("qwen/qwen3-8b:thinking", "thinking"),  # of a name in another case
    ],
)
def test_a_variant_is_asked_for_behind_any_name_of_its_base(name: str, variant: str) -> None:
    assert resolve_name(name, INDEX, fuzzy=True) == Named(ModelId("Qwen/Qwen3-8B"), variant)


def test_the_base_of_a_variant_is_guessed_only_where_guessing_is_on() -> None:
    with pytest.raises(ModelNotFoundError):
        resolve_name("qwen3-8b:thinking", INDEX, fuzzy=False)
    with pytest.raises(AmbiguousModelError):
        resolve_name("qwen3", INDEX, fuzzy=True)


def test_a_wrong_variant_is_told_the_right_ones() -> None:
    with pytest.raises(ModelNotFoundError, match="no variant 'fast'; it has precise, thinking"):
        resolve("gpt-4o-mini:fast")


def test_a_quantised_copy_is_found_by_the_name_of_the_original() -> None:
    index = build_index([ModelId("mlx-community/gemma-3-4b-it-4bit"), ModelId("Qwen/Qwen3-8B")], {})
    assert resolve_name("gemma-3-4b-it", index, fuzzy=True).model == "mlx-community/gemma-3-4b-it-4bit"
    both = build_index([ModelId("mlx-community/gemma-3-4b-it-4bit"), ModelId("google/gemma-3-4b-it")], {})
    assert resolve_name("gemma-3-4b-it", both, fuzzy=True).model == "google/gemma-3-4b-it"


def test_only_what_may_be_used_is_guessed_among() -> None:
    found = resolve_name("tiny", INDEX, fuzzy=True, allowed=lambda name: name != "other/tiny")
    assert found.model == "acme/tiny"
    with pytest.raises(ModelNotFoundError) as refused:
        resolve_name("tiny", INDEX, fuzzy=True, allowed=lambda name: False)
    assert refused.value.candidates == ()


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
