"""What names say: real ids, and the traps that substrings fall into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.capability import Capability
from registry.families import FamiliesError, build_table, load_families
from registry.names import NameFacts, parse_name

TABLE = load_families()

LETTERS = {
    "G": Capability.GENERATE, "T": Capability.TOOL_USE, "V": Capability.VISION, "Vd": Capability.VIDEO,
    "A": Capability.AUDIO, "R": Capability.REASONING, "E": Capability.EMBED, "K": Capability.RERANK,
    "S": Capability.TRANSCRIBE, "C": Capability.CODE, "X": Capability.CLASSIFY,
}  # fmt: skip


def parse(name: str) -> NameFacts:
    return parse_name(name, TABLE)


def can(letters: str) -> frozenset[Capability]:
    return frozenset(LETTERS[letter] for letter in letters.split())


# Each with its provider, its capabilities and its context.
REAL = [
    ("Qwen/Qwen2-7B-Instruct", "Qwen", "G", 32768),
    ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen", "G T", 32768),
    ("Qwen/Qwen2.5-14B-Instruct-1M", "Qwen", "G T", 1010000),
    ("Qwen/Qwen2.5-Coder-32B-Instruct", "Qwen", "G T C", 32768),
    ("Qwen/Qwen2.5-Math-RM-72B", "Qwen", "X", 4096),
    ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen", "G V Vd", 128000),
    ("Qwen/Qwen2-Audio-7B-Instruct", "Qwen", "G A", 8192),
    ("Qwen/QwQ-32B", "Qwen", "G T R", 40960),
    ("Qwen/Qwen3-0.6B", "Qwen", "G T R", 40960),
    ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen", "G T", 262144),
    ("Qwen/Qwen3-30B-A3B-Thinking-2507", "Qwen", "G T R", 262144),
    ("Qwen/Qwen3-Coder-Next", "Qwen", "G T C", 262144),
    ("Qwen/Qwen3-Next-80B-A3B-Thinking", "Qwen", "G T R", 262144),
    ("Qwen/Qwen3-VL-8B-Instruct", "Qwen", "G T V Vd", 262144),
    ("Qwen/Qwen3-Omni-30B-A3B-Instruct", "Qwen", "G T V Vd A", 65536),
    ("Qwen/Qwen3.5-397B-A17B", "Qwen", "G T R V Vd", 262144),
    ("Qwen/Qwen3.6-27B-FP8", "Qwen", "G T R V Vd", 262144),
    ("Qwen/Qwen3-Embedding-0.6B", "Qwen", "E", 32768),
    ("Qwen/Qwen3-Reranker-0.6B", "Qwen", "K", 40960),
    ("meta-llama/Llama-2-7b-chat-hf", "Meta", "G", 4096),
    ("meta-llama/Meta-Llama-3-8B-Instruct", "Meta", "G", 8192),
    ("meta-llama/Llama-3.1-405B-Instruct-FP8", "Meta", "G T", 131072),
    ("meta-llama/Llama-3.2-11B-Vision-Instruct", "Meta", "G V T", 131072),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "Meta", "G T V", 10485760),
    ("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", "Meta", "G T", 131072),
    ("NousResearch/Hermes-3-Llama-3.1-8B", "Nous", "G T", 131072),
    ("google/gemma-2b-it", "Google", "G", 8192),
    ("google/gemma-2-9b-it", "Google", "G", 8192),
    ("google/gemma-3-270m-it", "Google", "G", 32768),
    ("google/gemma-3-4b-it", "Google", "G V", 131072),
    ("google/gemma-3n-E2B-it", "Google", "G V Vd A", 32768),
    ("google/gemma-4-E2B-it", "Google", "G T R V Vd A", 131072),
    ("google/gemma-4-26B-A4B-it", "Google", "G T R V Vd", 262144),
    ("google/embeddinggemma-300m", "Google", "E", 2048),
    ("google/codegemma-7b-it", "Google", "G C", 8192),
    ("mlx-community/gemma-3-4b-it-4bit", "Google", "G V", 131072),
    ("mistralai/Mistral-7B-Instruct-v0.3", "Mistral", "G T", 32768),
    ("mistralai/Mixtral-8x7B-Instruct-v0.1", "Mistral", "G", 32768),
    ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "Mistral", "G T V", 131072),
    ("mistralai/Ministral-3-3B-Instruct-2512", "Mistral", "G T V", 262144),
    ("mistralai/Ministral-8B-Instruct-2410", "Mistral", "G T", 32768),
    ("mistralai/Magistral-Small-2509", "Mistral", "G T R V", 131072),
    ("mistralai/Voxtral-Mini-3B-2507", "Mistral", "G A S T", 32768),
    ("microsoft/Phi-3-mini-4k-instruct", "Microsoft", "G", 4096),
    ("microsoft/Phi-3-mini-128k-instruct", "Microsoft", "G", 131072),
    ("microsoft/phi-4", "Microsoft", "G", 16384),
    ("microsoft/Phi-4-mini-instruct", "Microsoft", "G T", 131072),
    ("microsoft/Phi-4-reasoning-plus", "Microsoft", "G R", 32768),
    ("deepseek-ai/DeepSeek-V3-0324", "DeepSeek", "G T", 163840),
    ("deepseek-ai/DeepSeek-V3.1", "DeepSeek", "G T R", 163840),
    ("deepseek-ai/DeepSeek-R1-0528", "DeepSeek", "G T R", 163840),
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "DeepSeek", "G R", 131072),
    ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "DeepSeek", "G R", 131072),
    ("openai/gpt-oss-20b", "OpenAI", "G T R", 131072),
    ("openai/whisper-large-v3", "OpenAI", "S", 448),
    ("zai-org/GLM-4.1V-9B-Thinking", "Zhipu", "G V Vd R", 65536),
    ("zai-org/GLM-4.5-Air", "Zhipu", "G T R", 131072),
    ("moonshotai/Kimi-K2-Instruct-0905", "Moonshot", "G T", 262144),
    ("moonshotai/Kimi-VL-A3B-Thinking", "Moonshot", "G V R", 131072),
    ("CohereLabs/c4ai-command-r7b-12-2024", "Cohere", "G T", 131072),
    ("allenai/Olmo-3-32B-Think", "AllenAI", "G R", 65536),
    ("allenai/Molmo-7B-D-0924", "AllenAI", "G V", 4096),
    ("llava-hf/llava-onevision-qwen2-7b-ov-hf", "LLaVA", "G V Vd", 32768),
    ("openbmb/MiniCPM-o-2_6", "OpenBMB", "G V Vd A", 32768),
    ("OpenGVLab/InternVL3_5-30B-A3B", "OpenGVLab", "G V Vd", 40960),
    ("nvidia/Llama-3_3-Nemotron-Super-49B-v1_5", "NVIDIA", "G T R", 131072),
    ("nvidia/Nemotron-H-8B-Base-8K", "NVIDIA", "G", 8192),
    ("BAAI/bge-m3", "BAAI", "E", 8192),
    ("BAAI/bge-reranker-v2-m3", "BAAI", "K", 8192),
    ("intfloat/multilingual-e5-large-instruct", "intfloat", "E", 512),
    ("intfloat/e5-mistral-7b-instruct", "intfloat", "E", 32768),
    ("Alibaba-NLP/gte-Qwen2-7B-instruct", "Alibaba", "E", 131072),
    ("Alibaba-NLP/gte-reranker-modernbert-base", "Alibaba", "K", 8192),
    ("sentence-transformers/all-MiniLM-L6-v2", "SBERT", "E", 512),
    ("cross-encoder/ms-marco-MiniLM-L-6-v2", "SBERT", "K", 512),
    ("Snowflake/snowflake-arctic-instruct", "Snowflake", "G", 4096),
    ("01-ai/Yi-34B-200K", "01.AI", "G", 200000),
]  # fmt: skip


@pytest.mark.parametrize(("name", "provider", "letters", "context"), REAL)
def test_real_ids(name: str, provider: str, letters: str, context: int) -> None:
    facts = parse(name)
    assert (facts.provider, facts.capabilities, facts.context) == (provider, can(letters), context)


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.5e9, None),
        ("Qwen/Qwen3-30B-A3B", 30e9, 3e9),
        ("google/gemma-4-26B-A4B-it", 26e9, 4e9),
        ("mistralai/Mixtral-8x7B-v0.1", 46.7e9, 12.9e9),
        ("acme/moe-4x3b", 12e9, None),
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
        ("allenai/Flex-reddit-2x7B-1T", 14e9, None),
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
        ("Qwen/Qwen3-8B-AWQ", "awq"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", "fp8"),
        ("unsloth/llama-3-8b-bnb-4bit", "bnb-4bit"),
        ("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M", "gguf-q4_k_m"),
        ("/models/phi-4-Q4_K_M.gguf", "gguf-q4_k_m"),
        ("acme/thing-7b-w4a16", "w4a16"),
        ("my-org/gemma-4bit-q8", "4bit"),
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
        ("acme/dolphin-2.9-llama3-8b", "dolphin"),
        ("acme/my-llama3.1-8b", "llama-3.1"),
        ("acme/meta-llama-3-1-8b", "llama-3.1"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama"),
        ("acme/phi-4bit", "phi"),
        ("THUDM/glm-4-9b-chat-1m", "glm-4"),
        ("meta-llama/something-else", None),
        ("acme/mixe5-large", None),
        ("/home/me/.cache/hub/models--Qwen--Qwen3-8B/snapshots/0123abc", "qwen3"),
        ("acme/colqwen2-v1.0", "colqwen"),
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
        ("acme/llama-3-8b-italian", "base"),
        ("allenai/Olmo-3-32B-Think", "reasoning"),
    ],
)
def test_stages(name: str, stage: str | None) -> None:
    assert parse(name).stage == stage


def test_a_base_model_calls_no_tools() -> None:
    assert parse("meta-llama/Llama-3.1-8B").capabilities == can("G")


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
        ({"families": [{"name": n, "match": ["x"], "can": ""} for n in "ab"]}, "match given twice: x"),
        ({"roles": {"fly": []}}, "roles: 'fly' is not a capability"),
    ],
)
def test_a_mistake_in_the_table_is_named(data: object, says: str) -> None:
    with pytest.raises(FamiliesError, match=says):
        build_table(data)
