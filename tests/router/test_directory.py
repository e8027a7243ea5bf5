"""Names, bodies and keys to routes: what the front is told before anything is loaded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry.capability import ENDPOINTS
from registry.errors import CapabilityMissingError, ContextExceededError, ModelNotFoundError
from router.directory import CatalogDirectory
from router.heads import parse_request_head
from router.keys import Grant, Key, KeyHolder, Use
from router.plan import Plan, plan
from router.ports import Holder
from tests.support.models import catalog_of, command

CHAT = "/v1/chat/completions"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}

MODELS = {
    "text": command("generate", context=4096),
    "seeing": command("generate", "vision", "tool_use", context=8192),
    "vectors": command("embed"),
    "unknown": command(),
    "trusting": command("generate", check_requests=False),
}


def holder(*models: str) -> KeyHolder:
    return KeyHolder(Grant(Key("k", b"", models=frozenset(models)), Use(), "inner"))


def planned(model: str | None, path: str = CHAT, who: Holder | None = None, **body: Any) -> Plan:
    directory = CatalogDirectory(catalog_of(MODELS))
    head = parse_request_head(HEAD, max_fields=100)
    named = {} if model is None else {"model": model}
    return plan(json.dumps({**named, **body}).encode(), head, ENDPOINTS[path], directory, holder=who)


def message(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def test_what_the_model_can_do_is_let_through() -> None:
    assert planned("text", messages=message({"type": "text", "text": "hi"})).route.model == "text"
    assert planned("seeing", messages=message(IMAGE), tools=[TOOL], max_tokens=8192).route.model == "seeing"
    assert planned("vectors", "/v1/embeddings", input="hi").route.model == "vectors"


def test_the_wrong_endpoint_is_refused() -> None:
    with pytest.raises(CapabilityMissingError) as refused:
        planned("text", "/v1/embeddings", input="hi")
    assert refused.value.candidates == ("vectors",)
    with pytest.raises(CapabilityMissingError, match="vectors cannot serve /v1/chat/completions"):
        planned("vectors", messages=[])


def test_the_wrong_content_is_refused() -> None:
    with pytest.raises(CapabilityMissingError, match="has images") as images:
        planned("text", messages=message(IMAGE))
    assert images.value.candidates == ("seeing",)
    with pytest.raises(CapabilityMissingError, match="has tools") as tools:
        planned("text", messages=[], tools=[TOOL])
    assert tools.value.param == "tools"
    with pytest.raises(ContextExceededError, match="max_tokens is 4097"):
        planned("text", messages=[], max_tokens=4097)


def test_a_switch_in_the_models_entry_leaves_it_to_the_engine() -> None:
    assert planned("trusting", messages=message(IMAGE), tools=[TOOL]).route.check is None
    with pytest.raises(CapabilityMissingError):
        planned("trusting", "/v1/embeddings", input="hi")


def test_a_model_that_nobody_knows_is_not_looked_into() -> None:
    assert planned("unknown", messages=message(IMAGE)).route.check is None


def test_a_key_with_a_list_of_models_is_told_of_no_other() -> None:
    with pytest.raises(CapabilityMissingError) as refused:
        planned("text", who=holder("text"), messages=message(IMAGE))
    assert refused.value.candidates == ()
    with pytest.raises(CapabilityMissingError) as endpoint:
        planned("text", "/v1/embeddings", who=holder("text"))
    assert endpoint.value.candidates == ()
    with pytest.raises(ModelNotFoundError) as nearest:
        planned("seeings", who=holder("text"))
    assert nearest.value.candidates == ()
    with pytest.raises(ModelNotFoundError) as known:
        planned("seeings", who=holder("seeing"))
    assert known.value.candidates == ("seeing",)
