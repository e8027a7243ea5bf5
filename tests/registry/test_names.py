"""What names say: real ids, and the traps that substrings fall into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.capability import Capability
from registry.families import FamiliesError, build_table, load_families
from registry.names import NameFacts, parse_name

TABLE = load_families()


def parse(name: str) -> NameFacts:
    return parse_name(name, TABLE)


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.5e9, None),
        ("Qwen/Qwen3-30B-A3B", 30e9, 3e9),
        ("google/gemma-4-26B-A4B-it", 26e9, 4e9),
        ("mistralai/Mixtral-8x7B-v0.1", 46.7e9, 12.9e9),
        ("acme/moe-4x3b", 10e9, None),
        ("meta-llama/Llama-4-Scout-17B-16E", 109e9, 17e9),
        ("acme/other-17B-16E", None, 17e9),
        ("google/gemma-4-E4B-it", 7.9e9, 4.5e9),
        ("acme/thing-350m", 350e6, None),
        ("bigscience/bloomz-1b1", 1.1e9, None),
        ("internlm/internlm2-chat-1_8b", 1.8e9, None),
        ("ibm-granite/granite-3.0-3b-a800m-instruct", 3e9, 800e6),
        ("ai-sage/GigaChat3-10B-A1.8B", 10e9, 1.8e9),
        ("Qwen/Qwen1.5-MoE-A2.7B-Chat", None, 2.7e9),
        ("allenai/OLMoE-1B-7B-0924", 6.9e9, 1.3e9),
        ("allenai/Flex-reddit-2x7B-1T", 11.6e9, None),
        ("acme/moe-8X3B-18.4B", 18.4e9, None),
        ("acme/moe-4x8B-A10B", 26.7e9, 10e9),
        ("acme/thing-0b", None, None),
        ("inclusionAI/Ring-2.5-1T", 1e12, None),
        ("Qwen/Qwen2.5-14B-Instruct-1M", 14e9, None),
        ("moonshotai/Kimi-K2-Instruct", None, None),
        ("acme/llama-4bit", None, None),
        ("acme/model-11b", 11e9, None),
        ("mistralai/Ministral-3-3B-Instruct-2512", 3e9, None),
        ("lightonai/LightOnOCR-1B-1025", 1e9, None),
    ],
)
def test_sizes(name: str, total: float | None, active: float | None) -> None:
    facts = parse(name)
    assert (facts.parameters, facts.active_parameters) == (total, active)


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("mlx-community/Llama-3.2-3B-Instruct-4bit", "mlx-4bit"),
        ("lmstudio-community/Qwen3-Coder-30B-A3B-Instruct-MLX-4bit", "mlx-4bit"),
        ("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", "awq-int4"),
        ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4", "gptq-int4"),
        ("Qwen/Qwen3-8B-AWQ", "awq-4bit"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", "fp8"),
        ("unsloth/llama-3-8b-bnb-4bit", "bnb-4bit"),
        ("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M", "gguf-q4_k_m"),
        ("/models/phi-4-Q4_K_M.gguf", "gguf-q4_k_m"),
        ("acme/thing-7b-w4a16", "w4a16"),
        ("my-org/gemma-4bit-q8", "4bit"),
        ("mlx-community/NVIDIA-Nemotron-Nano-9B-v2-4bits", "mlx-4bit"),
        ("mlx-community/gpt-oss-20b-mxfp4-8bits", "mxfp4-8bit"),
        ("acme/llama-3.1-8b-instruct_4bitgs64_hqq", "hqq-4bit"),
        ("acme/Llama-3.1-8B-exl2:4.0bpw", "exl2-4.0bpw"),
        ("acme/gpt-oss-20b-GGUF:MXFP4_MOE", "gguf-mxfp4"),
        ("google/gemma-3-4b-it-qat-q4_0-gguf", "gguf-q4_0"),
        ("google/gemma-3-4b-it-qat-q4_0-unquantized", None),
        ("Qwen/Qwen3-8B", None),
        ("acme/model-8b", None),
    ],
)
def test_quantizations(name: str, quantization: str | None) -> None:
    assert parse(name).quantization == quantization


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("acme/thing-7b-128k", 131072),
        ("acme/thing-7b-200K", 200000),
        ("acme/thing-7b-1m", 1048576),
        ("acme/thing-7b-131k", 131072),
        ("acme/thing-7b-262k", 262144),
        ("acme/thing-7b-1048k", 1048576),
        ("acme/thing-7b-130k", 130000),
        ("openbmb/MiniCPM-Embedding", None),
        ("tencent/KaLM-Embedding-Gemma3-12B-2511", None),
        ("acme/some-VL-7b", 32768),
        ("acme/qwen2-vl-finetune", 32768),
        ("Qwen/Qwen-VL-Chat", 32768),
        ("acme/marvl-7b", None),
        ("acme/thing-1025", None),
    ],
)
def test_contexts(name: str, context: int | None) -> None:
    assert parse(name).context == context


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("my-org/gemma-4bit", "gemma"),
        ("my-org/gemma-4bit-q8", "gemma"),
        ("my-org/gemma-4-4bit", "gemma-4"),
        ("my-org/gemma4-31b-it", "gemma-4"),
        ("acme/dolphin-2.9-llama3-8b", "llama-3"),
        ("acme/my-llama3.1-8b", "llama-3.1"),
        ("acme/meta-llama-3-1-8b", "llama-3.1"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama"),
        ("acme/phi-4bit", "phi"),
        ("THUDM/glm-4-9b-chat-1m", "glm-4"),
        ("meta-llama/something-else", None),
        ("acme/mixe5-large", None),
        ("/home/me/.cache/hub/models--Qwen--Qwen3-8B/snapshots/0123abc", "qwen3"),
        ("acme/colqwen2-v1.0", "colqwen"),
        ("https://huggingface.co/google/gemma-3-4b-it/resolve/main/config.json", "gemma-3"),
        ("https://modelscope.cn/models/Qwen/Qwen3-8B/summary", "qwen3"),
    ],
)
def test_families_are_found_by_whole_segments(name: str, family: str | None) -> None:
    assert parse(name).family == family


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("acme/marvl-7b", Capability.VISION),
        ("acme/supervision-7b", Capability.VISION),
        ("acme/television-7b", Capability.VISION),
        ("acme/decoder-only-7b", Capability.CODE),
        ("acme/codec-7b", Capability.CODE),
        ("acme/qwen3-8b-non-thinking-instruct", Capability.REASONING),
        ("acme/mediocre-7b", Capability.VISION),
        ("google/gemma-4-31B-it", Capability.AUDIO),
        ("google/gemma-3-1b-it", Capability.VISION),
        ("acme/vocoder-1b", Capability.CODE),
        ("acme/transcoder-1b", Capability.CODE),
        ("acme/watts-1b", Capability.SPEAK),
        ("intfloat/e5-mistral-7b-instruct", Capability.GENERATE),
    ],
)
def test_what_a_substring_would_have_made_of_it(name: str, capability: Capability) -> None:
    assert capability not in (parse(name).capabilities or frozenset())


def test_an_unknown_name_says_nothing() -> None:
    assert parse("acme/foo") == NameFacts()


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("google/gemma-3-4b-it-4bit", "instruct"),
        ("google/gemma-3-4b-pt", "base"),
        ("meta-llama/Llama-3.1-8B", "base"),
        ("Qwen/Qwen3-8B", None),
        ("mlx-community/Llama-3.2-1B-4bit", "base"),
        ("acme/llama-3-8b-italian", None),
        ("llama3.1:8b", None),
        ("mistral-nemo", None),
        ("nvidia/Llama3-ChatQA-1.5-8B", None),
        ("allenai/Olmo-3-32B-Think", "reasoning"),
    ],
)
def test_stages(name: str, stage: str | None) -> None:
    assert parse(name).stage == stage


def test_a_base_model_calls_no_tools() -> None:
    assert parse("meta-llama/Llama-3.1-8B").capabilities == frozenset({Capability.GENERATE})


@given(st.text(max_size=80))
def test_any_text_is_parsed(text: str) -> None:
    facts = parse(text)
    assert facts.parameters is None or facts.parameters >= 0


WORDS = (
    "qwen3 gemma 4 4bit a3b 30b 8x7b 17b 16e e2b vl embed rerank 128k q8_0 gguf 1m 3 base it mlx awq 0.6b ."
)
PARTS = st.sampled_from(WORDS.split())


@given(st.lists(PARTS, max_size=8), st.sampled_from(["-", "_", ".", " ", "", "/", ":"]))
def test_any_words_are_parsed_the_same_in_any_case(parts: list[str], between: str) -> None:
    name = between.join(parts)
    assert parse(name) == parse(name.upper())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "expected providers"),
        ({"familes": []}, "expected providers"),
        ({"families": [{"name": "x", "match": ["x"]}]}, "x: expected name, match and can"),
        ({"families": [{"name": "x", "match": ["x"], "can": "fly"}]}, "x: 'fly' is not a capability"),
        ({"families": [{"name": "x", "match": [""], "can": ""}]}, "x: an empty match"),
        (
            {"families": [{"name": "x", "match": ["x"], "can": "", "context": "8k"}]},
            "x: '8k' is not a number",
        ),
        (
            {"families": [{"name": "x", "match": ["x"], "can": "", "when": [{"can": ""}]}]},
            "x: when needs has",
        ),
        ({"families": [{"name": "x", "match": ["x"], "can": "", "sizes": {"1b": 3}}]}, "x: a size is"),
        ({"families": [{"name": "x", "match": ["x"], "can": "", "bare": "chat"}]}, "x: bare can only"),
        ({"families": [{"name": "x", "match": ["x"], "can": "", "later": "x"}]}, "x: later needs one {}"),
        ({"families": [{"name": "x", "match": ["x"], "can": "", "native": 8}]}, "x: 8 is not a word"),
        ({"families": [{"name": n, "match": ["x"], "can": ""} for n in "ab"]}, "match given twice: x"),
        ({"roles": {"fly": []}}, "roles: 'fly' is not a capability"),
    ],
)
def test_a_mistake_in_the_table_is_named(data: object, says: str) -> None:
    with pytest.raises(FamiliesError, match=says):
        build_table(data)
