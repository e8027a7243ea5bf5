"""Every fact in the lists of released and of treacherous names is read from the name alone."""

from __future__ import annotations

import re

import pytest

from registry.families import load_families
from registry.names import Family, NameFacts, parse_name
from tests.support.named import Named, read_named

TABLE = load_families()
RELEASED = read_named("names.tsv")
FURTHER = read_named("more_names.tsv")

ROUNDING = 1.3
"""A name rounds: Ministral-3-3B has 3.8 billion parameters."""


def same_size(said: int | None, billions: float | None) -> bool:
    if said is None or billions is None:
        return said is None and billions is None
    return billions / ROUNDING <= said / 1e9 <= billions * ROUNDING


@pytest.mark.parametrize("line", [*RELEASED, *FURTHER], ids=lambda line: line.id)
def test_a_name_gives_its_facts_and_no_others(line: Named) -> None:
    facts = parse_name(line.id, TABLE)
    assert (facts.provider, facts.family) == (line.provider, line.family)
    assert facts.capabilities == line.capabilities
    assert same_size(facts.parameters, line.billions), facts.parameters
    assert same_size(facts.active_parameters, line.active_billions), facts.active_parameters
    assert (facts.quantization, facts.context) == (line.quantization, line.context)


def test_there_are_enough_of_both_kinds_and_none_twice() -> None:
    ids = [line.id for line in (*RELEASED, *FURTHER)]
    assert len(RELEASED) == 179
    assert len(FURTHER) > 300
    assert len(set(ids)) == len(ids)


SAID = {line.family for line in (*RELEASED, *FURTHER)}


def test_every_row_of_the_table_has_a_line() -> None:
    assert [row.name for row in TABLE.families if not has_line(row)] == []


def has_line(row: Family) -> bool:
    names = {row.name, *(variant.family for variant in row.variants if variant.family)}
    # A row for what has no generation or another one than those with rows of their own.
    pattern = re.escape(row.later or row.name).replace(r"\{\}", r"[vkm]?\d+(\.\d+)?")
    later = {name for name in SAID if name and re.fullmatch(pattern, name)}
    return names <= SAID or bool(later)


@pytest.mark.parametrize(
    ("name", "version", "base"),
    [
        ("NousResearch/Hermes-3-Llama-3.1-8B", "3", "llama-3.1"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", None, "qwen"),
        ("CohereLabs/c4ai-command-r7b-12-2024", None, None),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", None, "qwen3"),
        ("Qwen/Qwen2.5-7B-Instruct", "2.5", None),
        ("mistralai/Mistral-7B-Instruct-v0.3", "0.3", None),
        ("google/gemma-3n-E2B-it", "3n", None),
        ("google/gemma-2b-it", None, None),
        ("zai-org/GLM-4.5V", "4.5v", None),
        ("moonshotai/Kimi-K2.5", "2.5", None),
        ("intfloat/e5-large-v2", "2", None),
    ],
)
def test_the_generation_and_what_is_inside_a_wrapper(
    name: str, version: str | None, base: str | None
) -> None:
    facts = parse_name(name, TABLE)
    assert (facts.version, facts.base_family) == (version, base)


def test_a_worked_out_size_says_so() -> None:
    facts = parse_name("acme/moe-4x7b", TABLE)
    assert facts == NameFacts(parameters=23_400_000_000, parameters_estimated=True)


def test_the_context_of_a_family_is_not_said_to_stand_in_the_name() -> None:
    assert parse_name("Qwen/Qwen3-8B", TABLE).context_source == "name (its family)"
    assert parse_name("acme/thing-7b-128k", TABLE).context_source == "name"


def test_only_the_provider_publishes_in_its_own_precision() -> None:
    own, other = (parse_name(f"{org}/gpt-oss-20b", TABLE) for org in ("openai", "unsloth"))
    assert (own.quantization, own.quantization_source) == ("mxfp4", "name (as its provider publishes it)")
    assert other.quantization is None
