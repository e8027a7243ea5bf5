"""Ring 5: the parsers that are chosen, tried in the installed vllm-mlx and mlx-lm on what models write.

Names alone do not tell: vllm-mlx's `granite` does not read the calls of Granite 4.
"""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from typing import Any, Final

import pytest

from config.places import engine_folder
from config.vocabulary import EngineName
from registry.chat_template import FORMATS, tool_format
from registry.installed import look_into
from registry.parsers import Row, parser_table
from tests.support.real_engines import ENGINES, real
from tests.support.running_daemon import ROOT

WRITINGS: Final[dict[str, dict[str, str]]] = json.loads(
    (ROOT / "tests" / "registry" / "data" / "writings.json").read_text(encoding="utf-8")
)
"""One call of `get_weather` in Paris, and one thought before an answer, as each format writes it."""

CALLS: Final = {
    "qwen 3.5": "qwen3_coder",
    "qwen 3 coder": "qwen3_coder",
    "qwen 3": "hermes",
    "qwen 2.5": "hermes",
    "qwq": "hermes",
    "hermes": "hermes",
    "llama 4": "llama4_json",
    "llama 3.1": "llama3_json",
    "xlam": "xlam",
    "nemotron 3": "qwen3_coder",
    "mistral": "mistral",
    "deepseek r1": "deepseek_v3",
    "deepseek v3": "deepseek_v3",
    "deepseek v4": "deepseek_v4",
    "glm 4.5": "glm",
    "glm 4.7": "glm",
    "gemma 4": "gemma4",
    "granite 4": "granite4",
    "granite 3": "granite",
    "minimax m2": "minimax_m2",
    "kimi k2": "kimi_k2",
    "gpt oss": "harmony",
    "step 3.5": "qwen3_coder",
    "laguna": "glm",
    "functionary": "functionary",
}
"""How the models of each row with a parser of vllm-mlx write calls."""

THOUGHTS: Final = {
    "qwen 3.5": "tags",
    "qwen 3": "tags",
    "qwq": "rest of tags",
    "nemotron 3": "rest of tags",
    "mistral": "mistral",
    "deepseek r1": "rest of tags",
    "deepseek r1 distill": "rest of tags",
    "deepseek v4": "tags",
    "glm 4.5": "tags",
    "glm 4.7": "tags",
    "gemma 4": "gemma4",
    "minimax m2": "rest of tags",
    "kimi k2": "tags",
    "gpt oss": "harmony",
    "step 3.5": "rest of tags",
    "laguna": "tags",
}

TABLE: Final = parser_table()
VLLM_MLX, MLX_LM = EngineName.VLLM_MLX, EngineName.MLX_LM


@lru_cache
def tried(engine: EngineName) -> Any:
    """What the parsers of *engine* make of the writings."""
    script = ROOT / "tests" / "support" / "parsers_in_engine.py"
    answer = subprocess.run(
        [engine_folder(ENGINES, engine) / "bin" / "python", script, engine.value],
        input=json.dumps(WRITINGS),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(answer.stdout)


def row(pattern: str) -> Row:
    return dict(TABLE.families)[tuple(pattern.split())]


def offered(engine: EngineName) -> Any:
    found = look_into(engine, engine_folder(ENGINES, engine))
    assert found is not None
    return found.parsers


class TestVllmMlx:
    pytestmark = real(VLLM_MLX)

    def test_what_it_offers_is_what_is_found_in_its_source(self) -> None:
        assert set(tried(VLLM_MLX)["tools"]) == offered(VLLM_MLX).tools
        assert set(tried(VLLM_MLX)["reasoning"]) == offered(VLLM_MLX).reasoning

    @pytest.mark.parametrize(
        ("name", "parsers"),
        [(name, row.tools[VLLM_MLX]) for name, row in TABLE.formats.items() if VLLM_MLX in row.tools],
    )
    def test_it_reads_the_calls_of_every_format(self, name: str, parsers: tuple[str, ...]) -> None:
        for parser in parsers:
            assert name in tried(VLLM_MLX)["tools"][parser]

    @pytest.mark.parametrize(("pattern", "writing"), CALLS.items())
    def test_it_reads_the_calls_of_every_family(self, pattern: str, writing: str) -> None:
        for parser in row(pattern).tools[VLLM_MLX]:
            assert writing in tried(VLLM_MLX)["tools"][parser]

    @pytest.mark.parametrize(("pattern", "writing"), THOUGHTS.items())
    def test_it_reads_the_thoughts_of_every_family(self, pattern: str, writing: str) -> None:
        for parser in row(pattern).reasoning[VLLM_MLX]:
            assert writing in tried(VLLM_MLX)["reasoning"][parser]

    def test_no_family_is_left_out(self) -> None:
        calling = {id(row) for _, row in TABLE.families if VLLM_MLX in row.tools}
        thinking = {id(row) for _, row in TABLE.families if VLLM_MLX in row.reasoning}
        assert {id(row(pattern)) for pattern in CALLS} == calling
        assert {id(row(pattern)) for pattern in THOUGHTS} == thinking


class TestMlxLm:
    pytestmark = real(MLX_LM)

    @pytest.mark.parametrize("name", sorted(WRITINGS["templates"]))
    def test_it_reads_the_format_that_we_see_in_a_template_or_none(self, name: str) -> None:
        assert tool_format(WRITINGS["templates"][name]) == name
        parser = tried(MLX_LM)["templates"][name]
        row = TABLE.formats.get(name)
        assert ((parser,) if parser else None) == (None if row is None else row.tools.get(MLX_LM))
        if parser is not None:
            assert name in tried(MLX_LM)["tools"][parser]

    def test_every_format_of_the_table_has_a_template(self) -> None:
        assert set(TABLE.formats) <= set(WRITINGS["templates"]) <= set(FORMATS)
