"""Facts as answers show them."""

from __future__ import annotations

import pytest

from config.vocabulary import EngineName
from registry.capability import Capability
from registry.describe import (
    bits_per_weight,
    described,
    display_name,
    dossier,
    supported_parameters,
    tags,
)
from registry.engine import ModelId
from registry.fact import Fact, Rank
from registry.model import Facts, Model, SourceKind

CHAT = Facts(
    capabilities=Fact(frozenset({Capability.GENERATE, Capability.TOOL_USE}), Rank.FILES, "files"),
    parameters=Fact(8_000_000_000, Rank.NAME, "name"),
    quantization=Fact("mlx-4bit", Rank.FILES, "config.json", (("bf16", "name"),)),
    family=Fact("qwen3", Rank.NAME, "name"),
)


def test_a_fact_says_who_says_it_and_who_says_otherwise() -> None:
    shown = described(CHAT)
    can = ["generate", "tool_use"]
    assert shown["capabilities"] == {"value": can, "source": "files", "rank": "files"}
    assert shown["quantization"]["others"] == [{"value": "bf16", "source": "name"}]
    assert shown["license"] == {"value": None, "source": "unknown", "rank": None}


def test_what_is_assumed_is_marked_and_only_of_what_is_known_enough() -> None:
    shown = described(CHAT)
    assert shown["context_length"] == {"value": 8192, "source": "default", "rank": "default"}
    assert shown["size_bytes"]["value"] == 4_500_000_000
    assert shown["size_bytes"]["rank"] == "default"
    nothing = described(Facts())
    assert {fact["value"] for fact in nothing.values()} == {None}


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        (None, 16), ("bf16", 16), ("fp16", 16), ("fp32", 32), ("fp8", 8), ("mlx-4bit", 4.5),
        ("awq-4bit", 4.5), ("gptq", 4.5), ("gguf-q4_k_m", 4.5), ("gguf-q8_0", 8),
        ("gguf-iq3_xxs", 3.5), ("w4a16", 4.5),
        ("w8a8", 8), ("nvfp4", 4.5), ("mxfp4", 4.5), ("mlx-6bit", 6.5), ("autoround-int4", 4.5), ("gguf", 16),
    ],
)  # fmt: skip
def test_the_width_of_a_weight(quantization: str | None, bits: float) -> None:
    assert bits_per_weight(quantization) == bits


def test_a_model_for_people() -> None:
    model = Model(ModelId("org/Qwen3-8B-4bit"), EngineName.MLX_LM, "", SourceKind.DIRECTORY, facts=CHAT)
    shown = dossier(model)
    assert (shown["display_name"], shown["registry_id"]) == ("Qwen3 8B 4bit", "mlx-lm/org_Qwen3-8B-4bit")
    assert tags(CHAT) == ["generate", "tool_use", "qwen3", "mlx-4bit"]
    assert "tool_choice" in supported_parameters(CHAT)
    assert supported_parameters(Facts()) == []
    assert display_name("---") == "---"
