"""Which parsers a model is started with, and which ones other tables get wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from config.places import engines_dir
from config.schema import ModelConfig
from config.vocabulary import EngineName
from registry.capability import Capability
from registry.chat_template import FORMATS, template_features
from registry.checkpoint import Checkpoint
from registry.engine import Installation, ModelId, ParserOffer
from registry.evidence import settle_facts
from registry.families import load_families
from registry.installed import look_into
from registry.model import Model, SourceKind
from registry.names import parse_name
from registry.offered import offered_parsers
from registry.parsers import (
    Parsers,
    ParsersError,
    build_table,
    choose_parsers,
    parser_args,
    parser_table,
)

FAMILIES = load_families()
RECORDED = json.loads((Path(__file__).parent / "data" / "parsers.json").read_text())
"""What vLLM 0.32 and vllm-mlx 0.6 offer, and what mlx-lm 0.32 finds by itself."""
VLLM, VLLM_MLX, MLX_LM = EngineName.VLLM, EngineName.VLLM_MLX, EngineName.MLX_LM


def installation(engine: EngineName) -> Installation:
    said = {"tools": (), "reasoning": ()} if engine not in (VLLM, VLLM_MLX) else RECORDED[engine.value]
    offer = ParserOffer(frozenset(said["tools"]), frozenset(said["reasoning"]))
    return Installation(engine, "/e", "1", offer)


def model(name: str, *, files: Checkpoint | None = None, **options: Any) -> Model:
    """A model of which the name is known, and what *files* say."""
    entry = ModelConfig(**({"source": name} | options))
    return Model(
        id=ModelId(name),
        engine=VLLM,
        source=name,
        source_kind=SourceKind.CONFIG,
        facts=settle_facts(name, parse_name(name, FAMILIES), checkpoint=files, options=entry),
        checkpoint=files,
        options=entry,
    )


def chosen(name: str, engine: EngineName = VLLM) -> tuple[str | None, str | None]:
    found = choose_parsers(model(name), installation(engine))
    return found.tools, found.reasoning


@pytest.mark.parametrize(
    ("name", "tools", "reasoning"),
    [
        # What tables of substrings, first match wins, are known to get wrong.
        ("NousResearch/Hermes-3-Llama-3.1-8B", "hermes", None),
        ("Qwen/Qwen3.6-35B-A3B", "qwen3_xml", "qwen3"),
        ("Qwen/Qwen3-Embedding-8B", None, None),
        ("Qwen/Qwen3-Reranker-4B", None, None),
        ("microsoft/phi-4", None, None),
        ("allenai/OLMo-2-1124-7B-Instruct", None, None),
        ("allenai/OLMoE-1B-7B-0924-Instruct", None, None),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", None, "deepseek_r1"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", None, "deepseek_r1"),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", None, "deepseek_r1"),
        ("Qwen/Qwen3-4B-Instruct-2507", "hermes", None),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_xml", None),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek_v31", "deepseek_v3"),
        ("deepseek-ai/DeepSeek-V3.2", "deepseek_v32", "deepseek_v3"),
        ("unsloth/gemma-4bit", None, None),
        ("mistralai/Ministral-8B-Instruct-2410", "mistral", None),
        ("mistralai/Devstral-Small-2507", "mistral", None),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", "mistral", None),
        ("meta-llama/Llama-2-7b-chat-hf", None, None),
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", None, None),
        # What they get right.
        ("Qwen/Qwen3-8B", "hermes", "qwen3"),
        ("Qwen/Qwen3-4B-Thinking-2507", "hermes", "qwen3"),
        ("Qwen/Qwen3.5-35B-A3B", "qwen3_xml", "qwen3"),
        ("Qwen/Qwen2.5-7B-Instruct", "hermes", None),
        ("Qwen/QwQ-32B", "hermes", "deepseek_r1"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_json", None),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama4_pythonic", None),
        ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "mistral", None),
        ("mistralai/Magistral-Small-2506", "mistral", "mistral"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek_v3", "deepseek_r1"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek_v3", None),
        ("zai-org/GLM-4.5-Air", "glm45", "glm45"),
        ("zai-org/GLM-4.7", "glm47", "glm47"),
        ("google/gemma-4-26B-A4B-it", "gemma4", "gemma4"),
        ("moonshotai/Kimi-K2-Instruct", "kimi_k2", None),
        ("openai/gpt-oss-20b", "openai", "openai_gptoss"),
        ("microsoft/Phi-4-mini-instruct", "phi4_mini_json", None),
        ("MiniMaxAI/MiniMax-M2.5", "minimax_m2", "minimax_m2"),
        ("moonshotai/Kimi-K2.6", "kimi_k2", "kimi_k2"),
        ("zai-org/GLM-5.3-Flash", "glm47", "glm47"),
        ("tencent/Hy3-preview", "hy_v3", "hy_v3"),
        ("ibm-granite/granite-20b-functioncalling", "granite-20b-fc", None),
        # What nobody knows.
        ("somebody/something-7b", None, None),
        ("Qwen/Qwen3-8B-Base", None, None),
    ],
)
def test_parsers_of_vllm_by_name(name: str, tools: str | None, reasoning: str | None) -> None:
    assert chosen(name) == (tools, reasoning)


@pytest.mark.parametrize(
    ("name", "tools", "reasoning"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3", None),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama4", None),
        ("openai/gpt-oss-20b", "harmony", "gpt_oss"),
        ("zai-org/GLM-4.5-Air", "glm47", "glm4"),
        ("google/gemma-4-26B-A4B-it", "gemma4", "gemma4"),
        ("microsoft/Phi-4-mini-instruct", None, None),
        ("mlx-community/Qwen3-8B-4bit", "hermes", "qwen3"),
        ("google/gemma-3-4b-it", None, None),
        ("ibm-granite/granite-4.0-h-tiny", "hermes", None),
        ("ibm-granite/granite-3.3-8b-instruct", "granite", None),
        ("MiniMaxAI/MiniMax-M2.7", "minimax_m2", "deepseek_r1"),
        ("poolside/Laguna-XS.2", "poolside_v1", "poolside_v1"),
    ],
)
def test_vllm_mlx_has_names_of_its_own(name: str, tools: str | None, reasoning: str | None) -> None:
    assert chosen(name, VLLM_MLX) == (tools, reasoning)


def test_a_name_that_the_installed_version_does_not_offer_is_not_used() -> None:
    old = Installation(VLLM, "/e", "0.10", ParserOffer(frozenset({"qwen3_coder"})))
    assert choose_parsers(model("Qwen/Qwen3-Coder-30B-A3B-Instruct"), old).tools == "qwen3_coder"
    nothing = Installation(VLLM, "/e", None)
    assert choose_parsers(model("Qwen/Qwen3-8B"), nothing) == Parsers(filter="tags")
    assert parser_args(model("Qwen/Qwen3-8B"), nothing) == ()


XML = "{%- for tool in tools %}<tool_call>\n<function=example_function_name>\n{%- endfor %}"
TOOLS, NO_TOOLS = frozenset({Capability.GENERATE, Capability.TOOL_USE}), frozenset({Capability.TOOL_USE})


def test_the_chat_template_is_believed_before_the_name() -> None:
    files = Checkpoint(yes=TOOLS, template=template_features(XML), has_chat_template=True)
    assert (
        choose_parsers(model("acme/Llama-3.1-8B-tuned", files=files), installation(VLLM)).tools == "qwen3_xml"
    )


def test_a_template_without_tools_means_no_parser_whatever_the_name() -> None:
    files = Checkpoint(yes=frozenset({Capability.GENERATE}), no=NO_TOOLS, has_chat_template=True)
    assert choose_parsers(model("Qwen/Qwen2.5-7B-Instruct", files=files), installation(VLLM)).tools is None


def test_an_unknown_format_of_vllm_mlx_is_found_in_the_answer_itself() -> None:
    files = Checkpoint(yes=TOOLS, has_chat_template=True)
    assert choose_parsers(model("acme/unheard-of", files=files), installation(VLLM_MLX)).tools == "auto"
    assert choose_parsers(model("acme/unheard-of"), installation(VLLM_MLX)).tools is None


def test_the_operators_word_comes_first() -> None:
    def args(**options: Any) -> tuple[str, ...]:
        return parser_args(model("Qwen/Qwen3-8B", **options), installation(VLLM))

    switched = ("--enable-auto-tool-choice", "--tool-call-parser")
    assert args() == (*switched, "hermes", "--reasoning-parser", "qwen3")
    assert args(tool_parser="mine", reasoning_parser="other") == (
        *switched,
        "mine",
        "--reasoning-parser",
        "other",
    )
    assert args(tool_parser="none", reasoning_parser="none") == ()
    # Given among the arguments, it is not given twice, and only the switch is added.
    own = ("--tool-call-parser", "mine", "--reasoning-parser=other")
    assert args(args=own) == ("--enable-auto-tool-choice",)


# -- the filter ------------------------------------------------------------------------------------


def filter_of(name: str, engine: EngineName, **options: Any) -> str | None:
    return choose_parsers(model(name, **options), installation(engine)).filter


def test_the_filter_is_on_only_where_the_engine_has_no_parser() -> None:
    for engine in (VLLM, VLLM_MLX, MLX_LM):
        assert filter_of("google/gemma-3-4b-it", engine) == "tool_code"
        assert filter_of("Qwen/Qwen3-Embedding-8B", engine) is None
        assert filter_of("somebody/something-7b", engine) is None
        assert filter_of("google/gemma-4-26B-A4B-it", engine) is None
    for engine in (VLLM, VLLM_MLX):
        assert filter_of("Qwen/Qwen3-8B", engine) is None
        assert filter_of("meta-llama/Llama-3.1-8B-Instruct", engine) is None


@pytest.mark.parametrize(
    ("template", "by_us"),
    [
        ("<tool_call>\n{{ tool_call.name }}", None),
        ("<tool_call>\n{{ tool_call.function.name }}", "tags"),  # json_tools is only chosen for the other one
        (XML, None),
        ("[TOOL_CALLS]", None),
        ("<|tool_call>call:{{ name }}<tool_call|>", None),
        ("<|python_tag|>", "json"),
        ("<|channel|>final<|message|>", "harmony"),
        ('<|start_header_id|>{"name": x, "parameters": y}', "json"),
    ],
)
def test_on_mlx_lm_ours_looks_where_nothing_of_its_own_does(template: str, by_us: str | None) -> None:
    files = Checkpoint(
        yes=TOOLS, template=template_features("{{ tools }}" + template), has_chat_template=True
    )
    found = choose_parsers(model("somebody/something-7b", files=files), installation(MLX_LM))
    assert (found.tools, found.filter) == (None, by_us)


def test_the_operator_switches_the_filter() -> None:
    assert filter_of("google/gemma-3-4b-it", MLX_LM, tool_filter="off") is None
    assert filter_of("somebody/something-7b", EngineName.COMMAND, tool_filter="tags") == "tags"
    assert filter_of("Qwen/Qwen3-8B", EngineName.COMMAND) is None


# -- the data --------------------------------------------------------------------------------------


def test_every_parser_in_the_table_is_offered_by_a_version_we_know() -> None:
    table = parser_table()
    for row in (*table.formats.values(), *(row for _, row in table.families)):
        for kind, named in (("tools", row.tools), ("reasoning", row.reasoning)):
            for engine, names in named.items():
                assert set(names) <= set(RECORDED[engine][kind]), (engine, kind, names)
    assert set(table.formats) <= set(FORMATS)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"formats": {"nobody": {}}, "families": []},
        {"formats": {}, "families": [{"match": ["a"], "tools": {"mlx-lm": "x"}}]},
        {"formats": {}, "families": [{"match": ["a"]}, {"match": ["a"]}]},
        {"formats": {}, "families": [{"match": ["a"], "filter": "regex"}]},
        {"formats": {}, "families": [{"match": ["a"], "parser": "x"}]},
    ],
)
def test_a_mistake_in_the_data_is_an_error(data: Any) -> None:
    with pytest.raises(ParsersError):
        build_table(data)


LAZY = """X = {
    "hermes": (
        "hermes_tool_parser",
        "HermesToolParser",
    ),
    "granite-20b-fc": ("granite_20b_fc_tool_parser", "Granite20bFCToolParser"),
}
"""


def test_what_an_engine_offers_is_read_from_its_source(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.12" / "site-packages"
    files = {
        "vllm/tool_parsers/__init__.py": LAZY,
        "vllm/reasoning/__init__.py": 'Y = {\n    "qwen3": (\n        "a",\n    ),\n}\n',
        "vllm_mlx/tool_parsers/a.py": '@Manager.register_module(["auto", "generic"])\nclass A: ...\n',
        "vllm_mlx/tool_parsers/b.py": '@Manager.register_module("gemma4")\nclass B: ...\n',
        "vllm_mlx/reasoning/__init__.py": 'def f():\n    register_parser("qwen3", P)\n',
    }
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    vllm = offered_parsers(VLLM, str(tmp_path), "1")
    assert vllm == ParserOffer(frozenset({"hermes", "granite-20b-fc"}), frozenset({"qwen3"}))
    mlx = offered_parsers(VLLM_MLX, str(tmp_path), "1")
    assert mlx == ParserOffer(frozenset({"auto", "generic", "gemma4"}), frozenset({"qwen3"}))
    assert offered_parsers(VLLM, str(tmp_path / "nowhere"), "1") == ParserOffer()


@pytest.mark.large_engine
@pytest.mark.parametrize("engine", [VLLM, VLLM_MLX])
def test_the_installed_engine_offers_what_was_recorded(engine: EngineName) -> None:
    found = look_into(engine, engines_dir(os.environ) / engine.value)
    if found is None:
        pytest.skip(f"{engine.value} is not installed")
    assert set(RECORDED[engine.value]["tools"]) <= found.parsers.tools
    assert set(RECORDED[engine.value]["reasoning"]) <= found.parsers.reasoning
