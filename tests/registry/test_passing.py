"""What may be asked of a model's server as it is, and which model a path begins with."""

from __future__ import annotations

import pytest

from config.vocabulary import EngineName
from registry.engine import ModelId
from registry.engine_choice import ENGINES
from registry.model import Model, SourceKind
from registry.passing import DEVELOPMENT, may_pass
from registry.resolve import build_index, longest_name


def passes(engine: EngineName) -> frozenset[str] | None:
    model = Model(id=ModelId("m"), engine=engine, source="/m", source_kind=SourceKind.CONFIG)
    return ENGINES[engine].wire(model).passes


@pytest.mark.parametrize("engine", list(ENGINES))
def test_what_takes_an_engine_apart_is_never_passed(engine: EngineName) -> None:
    for path in DEVELOPMENT:
        assert not may_pass(path, passes(engine))
        assert not may_pass(path + "/", passes(engine))


@pytest.mark.parametrize(
    ("engine", "path", "passed"),
    [
        (EngineName.VLLM, "/metrics", True),
        (EngineName.VLLM, "/", True),
        (EngineName.VLLM, "/tokenize", True),
        (EngineName.VLLM, "/v1/responses/resp_1/cancel", True),
        (EngineName.VLLM, "/kv_event_sources", False),
        (EngineName.VLLM, "/metrics/x", False),
        (EngineName.VLLM_MLX, "/v1/cache/prefix", True),
        (EngineName.VLLM_MLX, "/v1/mcp/execute", False),
        (EngineName.MLX_LM, "/health", True),
        (EngineName.MLX_LM, "/anything", False),
        (EngineName.COMMAND, "/props", True),
    ],
)
def test_an_engine_has_a_list_and_a_command_has_none(engine: EngineName, path: str, passed: bool) -> None:
    assert may_pass(path, passes(engine)) is passed


@pytest.mark.parametrize(
    ("path", "model", "rest"),
    [
        ("org/m/v1/x", "org/m", "/v1/x"),
        ("org%2Fm/v1%2Fx", "org/m", "/v1%2Fx"),
        ("org/other", "org", "/other"),
        ("org", "org", ""),
        ("org/m/deep", "org/m/deep", ""),
        ("short/health", "org/m", "/health"),
        ("org/m:fast/health", "org/m", "/health"),
        ("org/m:latest/a:b", "org/m", "/a:b"),
        ("org/m:slow/health", "org", "/m:slow/health"),
    ],
)
def test_of_ids_with_slashes_the_longest_known_is_meant(path: str, model: str, rest: str) -> None:
    ids = [ModelId(name) for name in ("org", "org/m", "org/m/deep")]
    index = build_index(ids, {"short": ids[1]}, {ids[1]: frozenset({"fast"})})
    found = longest_name(path, index)
    assert found is not None
    assert (found[0].model, found[1]) == (model, rest)


def test_what_no_model_is_called_is_nothing() -> None:
    assert longest_name("who/health", build_index([ModelId("m")], {})) is None
