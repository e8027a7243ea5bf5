"""What running servers answer to `/v1/models`."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.capability import Capability
from registry.evidence import settle_facts
from registry.families import load_families
from registry.names import parse_name
from registry.probe import (
    MAX_MODELS,
    ServedModel,
    parse_models,
    parse_routes,
    with_health,
    with_routes,
)

FAMILIES = load_families()


def parsed(value: object) -> tuple[ServedModel, ...]:
    return parse_models(json.dumps(value).encode())


def listed(*entries: object) -> dict[str, object]:
    return {"object": "list", "data": list(entries)}


def test_vllm_tells_the_context_in_force() -> None:
    entry = {"id": "q", "object": "model", "created": 5, "owned_by": "vllm", "root": "Qwen/Qwen3-8B",
             "parent": None, "max_model_len": 40960}  # fmt: skip
    adapter = {"id": "lora", "object": "model", "root": "/x", "parent": "q", "max_model_len": None}
    first, second = parsed(listed(entry, adapter))
    assert first == ServedModel("q", context_length=40960, root="Qwen/Qwen3-8B", created=5, owned_by="vllm")
    assert second.context_length is None


def test_vllm_mlx_marks_its_embedders() -> None:
    found = parsed(listed({"id": "a", "owned_by": "vllm-mlx"}, {"id": "b", "owned_by": "vllm-mlx-embedding"}))
    assert found[0].capabilities is None
    assert found[1].capabilities == frozenset({Capability.EMBED})


def test_llama_cpp_and_ollama_and_bare_lists() -> None:
    meta = {"n_ctx": 4096, "n_ctx_train": 131072, "n_params": 8030261312, "size": 4912898304}
    llama = {"id": "l", "object": "model", "owned_by": "llamacpp", "meta": meta}
    assert parsed({"models": [{"name": "x"}], "data": [llama]})[0] == ServedModel(
        "l", context_length=4096, parameters=8030261312, size_bytes=4912898304, owned_by="llamacpp"
    )
    tags = {
        "models": [
            {"name": "qwen3:8b", "model": "qwen3:8b", "size": 5, "capabilities": ["completion", "tools"]}
        ]
    }
    assert parsed(tags)[0].capabilities == frozenset({Capability.GENERATE, Capability.TOOL_USE})
    assert parsed([{"id": "x"}]) == (ServedModel("x"),)
    assert parsed({"object": "list", "data": None}) == ()


def test_one_of_our_own_kind_tells_everything() -> None:
    entry = {"id": "x", "capabilities": ["embed"], "context_length": 512, "size_bytes": 7, "parameters": 3}
    (found,) = parsed(listed(entry))
    assert (found.capabilities, found.context_length) == (frozenset({Capability.EMBED}), 512)
    assert (found.size_bytes, found.parameters) == (7, 3)
    words = {
        "active_parameters": 2,
        "quantization": "int4",
        "family": "qwen3",
        "architecture": "Qwen3ForCausalLM",
    }
    (found,) = parsed(listed(entry | words | {"source_kind": "hub", "sources": {}}))
    facts = settle_facts("x", parse_name("x", FAMILIES), served=found)
    said = (facts.active_parameters, facts.quantization, facts.family, facts.architecture)
    assert [fact.value for fact in said] == list(words.values())
    assert {fact.source for fact in said} == {"/v1/models"}


def test_other_servers_words_of_the_same_name_are_not_ours() -> None:
    words = {"quantization": "Q4_K_M", "family": "llama", "architecture": "llama", "active_parameters": 1}
    assert parsed(listed({"id": "x"} | words)) == (ServedModel("x"),)
    odd = {"quantization": "a\x1b[2J", "family": "f" * 99, "architecture": 3, "active_parameters": True}
    ours = {"id": "x", "source_kind": "hub", "sources": {}}
    assert parsed(listed(ours | odd)) == (ServedModel("x"),)


def test_odd_entries_are_left_out_and_each_id_comes_once() -> None:
    odd = [1, None, {}, {"id": 5}, {"id": ""}, {"id": "a\nb"}, {"id": " a"}, {"id": "x" * 300}]
    found = parsed(listed(*odd, {"id": "ok", "max_model_len": True}, {"id": "ok", "max_model_len": 9}))
    assert found == (ServedModel("ok"),)


def test_the_number_of_models_is_bounded() -> None:
    assert len(parsed([{"id": str(n)} for n in range(MAX_MODELS + 10)])) == MAX_MODELS


@pytest.mark.parametrize("body", [b"", b"nope", b'"x"', b"{}", b'{"data": 3}', b"[" * 100_000, b"\xff"])
def test_what_is_no_list_of_models_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="list of models"):
        parse_models(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "models", "id", "meta", "root", "capabilities"]), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_answer_is_parsed_or_refused(value: object) -> None:
    with contextlib.suppress(ValueError):
        parsed(value)


# -- routes and health -----------------------------------------------------------------------------

VLLM = ServedModel("q", owned_by="vllm")


def routes(*paths: str) -> frozenset[str]:
    return parse_routes(json.dumps({"paths": {path: {} for path in paths}}).encode())


@pytest.mark.parametrize(
    ("paths", "roles"),
    [
        (("/v1/chat/completions", "/v1/completions", "/tokenize"), {Capability.GENERATE}),
        (("/v1/embeddings", "/score", "/rerank", "/v1/rerank"), {Capability.EMBED}),
        (("/classify", "/score", "/rerank"), {Capability.RERANK}),
        (("/classify",), {Capability.CLASSIFY}),
        (("/v1/audio/transcriptions",), {Capability.TRANSCRIBE}),
    ],
)
def test_the_routes_of_vllm_say_what_the_model_is_for(paths: tuple[str, ...], roles: set[Capability]) -> None:
    assert with_routes(VLLM, routes(*paths)).roles == frozenset(roles)


def test_servers_that_have_all_their_routes_say_nothing_by_them() -> None:
    other = ServedModel("q", owned_by="vllm-mlx")
    assert with_routes(other, routes("/v1/embeddings")) == other
    assert with_routes(VLLM, routes("/health")) == VLLM


@pytest.mark.parametrize(("kind", "sees"), [("llm", False), ("mllm", True), ("new", None)])
def test_the_health_page_of_vllm_mlx_says_whether_it_sees(kind: str, sees: bool | None) -> None:
    body = json.dumps({"status": "healthy", "model_type": kind, "model_name": "q"}).encode()
    assert with_health(ServedModel("q", owned_by="vllm-mlx"), body).sees is sees
    assert with_health(VLLM, body).sees is None


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_page_of_a_server_raises(body: bytes) -> None:
    assert isinstance(with_routes(VLLM, parse_routes(body)), ServedModel)
    assert with_health(ServedModel("q", owned_by="vllm-mlx"), body).id == "q"
