"""Names, bodies and keys to routes: what the front is told before anything is loaded."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from registry.capability import ENDPOINTS
from registry.errors import (
    CapabilityMissingError,
    ContextExceededError,
    ModelNotFoundError,
    NothingLoadedError,
    VirtualNameError,
)
from registry.virtual import Standing, Warmth
from router.directory import CatalogDirectory
from router.heads import parse_request_head
from router.keys import Grant, Key, KeyHolder, Use
from router.plan import Others, Plan, plan
from router.ports import Bytes, Holder, Route
from router.refused import RefusedError
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


class Made(NamedTuple):
    """A plan and the body that goes with it."""

    plan: Plan
    pieces: list[Bytes]

    @property
    def route(self) -> Route:
        return self.plan.route

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def others(self) -> Others | None:
        return self.plan.others


def planned(model: str | None, path: str = CHAT, who: Holder | None = None, **body: Any) -> Made:
    return planned_by(CatalogDirectory(catalog_of(MODELS)), model, path, who, **body)


def planned_by(
    directory: CatalogDirectory, model: str | None, path: str = CHAT, who: Holder | None = None, **body: Any
) -> Made:
    head = parse_request_head(HEAD, max_fields=100)
    named = {} if model is None else {"model": model}
    return Made(*plan(json.dumps({**named, **body}).encode(), head, ENDPOINTS[path], directory, holder=who))


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


# -- virtual names and variants --------------------------------------------------------------------

SEVERAL = {
    "fast": command("generate", memory="1GiB"),
    "good": command("generate", "tool_use", memory="9GiB", variants={"calm": {"set": {"temperature": 0}}}),
    "seeing": command("generate", "vision", memory="5GiB"),
}
SMART = {
    "smart": {"models": ["good:calm", "seeing", "missing", "auto"]},
    "only": {"models": ["fast"], "fallback": []},
}


def several(standing: dict[str, Standing] | None = None) -> CatalogDirectory:
    catalog = catalog_of(SEVERAL, virtual=SMART)
    return CatalogDirectory(catalog, lambda model: (standing or {}).get(model.id, Standing()))


def asked_in_turn(made: Made) -> list[str]:
    others = () if made.others is None else made.others.routes
    return [made.route.model, *(route.model for route in others)]


def told(made: Made) -> Any:
    return json.loads(b"".join(made.pieces))


def test_auto_takes_the_cheapest_and_answers_in_its_name() -> None:
    made = planned_by(several(), "auto", messages=[])
    assert asked_in_turn(made) == ["fast", "seeing", "good"]
    assert (made.name, told(made)["model"]) == ("fast", "fast")


def test_auto_looks_into_the_request() -> None:
    assert asked_in_turn(planned_by(several(), "auto", messages=message(IMAGE))) == ["seeing"]
    assert asked_in_turn(planned_by(several(), "auto", messages=[], tools=[TOOL])) == ["good"]
    assert asked_in_turn(planned_by(several(), "auto:vision", messages=[])) == ["seeing"]


def test_auto_minds_how_long_an_answer_is_asked_for() -> None:
    lengths = {
        "short": command("generate", context=2048, memory="1GiB"),
        "long": command("generate", context=8192, memory="9GiB"),
    }
    directory = CatalogDirectory(catalog_of(lengths))
    for tokens, expected in ((100, "short"), (4096, "long"), (100, "short")):
        assert planned_by(directory, "auto", messages=[], max_tokens=tokens).route.model == expected


def test_auto_prefers_what_is_warm() -> None:
    warm = several({"good": Standing(Warmth.READY)})
    assert asked_in_turn(planned_by(warm, "auto", messages=[]))[0] == "good"


def test_auto_chooses_among_what_the_key_may_use() -> None:
    assert asked_in_turn(planned_by(several(), "auto", who=holder("good"), messages=[])) == ["good"]
    with pytest.raises(CapabilityMissingError, match="no model here that serves"):
        planned_by(several(), "auto:vision", who=holder("good"), messages=[])


def test_auto_says_what_nobody_can() -> None:
    with pytest.raises(
        CapabilityMissingError, match=r"auto:vision,context>=1M.* with vision, a context of 1048576"
    ):
        planned_by(several(), "auto:vision,context>=1M", messages=[])
    small = CatalogDirectory(catalog_of({"text": MODELS["text"]}))
    with pytest.raises(CapabilityMissingError, match="room for an answer of 99999999 tokens"):
        planned_by(small, "auto", messages=[], max_tokens=99999999)
    with pytest.raises(NothingLoadedError, match="auto:loaded"):
        planned_by(several(), "auto:loaded", messages=[])
    with pytest.raises(CapabilityMissingError, match="/v1/embeddings"):
        planned_by(several(), "auto", "/v1/embeddings", input="hi")


def test_a_name_without_a_request_is_the_model_that_a_chat_would_get() -> None:
    directory = several({"good": Standing(Warmth.READY)})
    assert directory.model("auto").id == "good"
    assert directory.model("smart").id == "good"
    assert directory.model("seeing").id == "seeing"
    with pytest.raises(CapabilityMissingError, match="/v1/tokenize with speak"):
        directory.model("auto:speak")


def test_where_none_of_them_chats_it_is_the_one_that_anything_else_would_get() -> None:
    assert CatalogDirectory(catalog_of(MODELS)).model("auto:embed").id == "vectors"


def test_an_operators_virtual_name_goes_by_the_operators_order() -> None:
    made = planned_by(several(), "smart", messages=[])
    assert asked_in_turn(made) == ["good", "seeing", "fast"]
    assert told(made) == {"model": "good", "messages": [], "temperature": 0}  # its variant's parameters


def test_those_that_cannot_serve_the_request_are_left_out() -> None:
    made = planned_by(several(), "smart", messages=message(IMAGE))
    assert asked_in_turn(made) == ["seeing"]
    with pytest.raises(CapabilityMissingError, match=r"only: none of its models can serve this: .*images"):
        planned_by(several(), "only", messages=message(IMAGE))


def test_a_key_for_a_virtual_name_may_use_what_it_stands_for() -> None:
    assert asked_in_turn(planned_by(several(), "smart", who=holder("smart"), messages=[]))[0] == "good"
    assert asked_in_turn(planned_by(several(), "smart", who=holder("seeing"), messages=[])) == ["seeing"]
    with pytest.raises(CapabilityMissingError, match="no model that the key k may use"):
        planned_by(several(), "only", who=holder("good"), messages=[])


def test_without_a_reason_to_fall_back_nobody_else_is_asked() -> None:
    assert planned_by(several(), "only", messages=[]).others is None


def test_a_variant_changes_the_request_and_is_named_in_the_answer() -> None:
    made = planned_by(several(), "good:calm", messages=[], temperature=1)
    assert (made.route.model, made.name) == ("good", "good:calm")
    assert told(made) == {"model": "good", "messages": [], "temperature": 0}
    assert told(planned_by(several(), "good", messages=[], temperature=1))["temperature"] == 1


def test_a_key_that_may_use_the_model_may_use_its_variants() -> None:
    assert planned_by(several(), "good:calm", who=holder("good"), messages=[]).route.model == "good"
    with pytest.raises(RefusedError):
        planned_by(several(), "good:calm", who=holder("fast"), messages=[])


def test_the_models_own_filters_and_the_variants_are_one() -> None:
    own = {
        "set": {"seed": 1, "top_p": 0.5},
        "default": {"temperature": 0.3, "max_tokens": 100},
        "strip": ["user"],
    }
    variant = {"set": {"top_p": 0.9}, "default": {"temperature": 0.7}, "strip": ["logprobs"]}
    models = {"m": command("generate", request=own, variants={"v": variant})}
    directory = CatalogDirectory(catalog_of(models))
    body: dict[str, Any] = {"messages": [], "user": "u", "logprobs": True, "seed": 9}
    assert told(planned_by(directory, "m", **body)) == {
        "model": "m", "messages": [], "logprobs": True, "seed": 1, "top_p": 0.5, "temperature": 0.3,
        "max_tokens": 100,
    }  # fmt: skip
    assert told(planned_by(directory, "m:v", max_tokens=5, **body)) == {
        "model": "m", "messages": [], "seed": 1, "top_p": 0.9, "temperature": 0.7, "max_tokens": 5,
    }  # fmt: skip


def test_a_request_that_only_counts_tokens_is_not_changed() -> None:
    directory = CatalogDirectory(catalog_of({"m": command("generate", request={"set": {"seed": 1}})}))
    assert told(planned_by(directory, "m", "/v1/tokenize", prompt="x")) == {"model": "m", "prompt": "x"}


@pytest.mark.parametrize(
    ("path", "model", "rest"),
    [
        ("text/health", "text", "/health"),
        ("text", "text", ""),
        ("seeing:latest/v1/x", "seeing", "/v1/x"),
    ],
)
def test_a_path_begins_with_a_name_by_the_grammar_of_names(path: str, model: str, rest: str) -> None:
    route, following = CatalogDirectory(catalog_of(MODELS)).below(path)
    assert (route.model, following) == (model, rest)


def test_a_path_of_no_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelNotFoundError, match="vectors"):
        CatalogDirectory(catalog_of(MODELS)).below("vectros/health")
    slashed = CatalogDirectory(catalog_of({"org/name": command("generate")}))
    assert slashed.below("name/health")[1] == "/health"
    for path in ("org/nane/health", "org/health", "nam/health"):
        with pytest.raises(ModelNotFoundError):
            slashed.below(path)
    with pytest.raises(VirtualNameError):
        CatalogDirectory(catalog_of(MODELS)).below("auto/health")
