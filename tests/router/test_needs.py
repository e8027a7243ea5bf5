"""What a request's content asks of a model, read without building the content."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.capability import NO_NEEDS, Capability, Needs
from router.needs import EVERYTHING, NeedsReader

VISION, VIDEO, AUDIO, TOOLS = Capability.VISION, Capability.VIDEO, Capability.AUDIO, Capability.TOOL_USE
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def chat(*parts: Any, **more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": list(parts)}], **more}).encode()


def part(kind: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("kind", "capability"),
    [
        ("image_url", VISION), ("image_embeds", VISION), ("video_url", VIDEO), ("input_audio", AUDIO),
        ("audio_url", AUDIO),
    ],
)  # fmt: skip
def test_parts_of_a_chat_message_ask_for_what_reads_them(kind: str, capability: Capability) -> None:
    assert EVERYTHING(chat({"type": "text", "text": "?"}, part(kind))) == Needs(frozenset({capability}))


def test_the_other_protocols_parts_are_known_too() -> None:
    responses = {
        "model": "m",
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": ""}]}],
    }
    assert EVERYTHING(json.dumps(responses).encode()).capabilities == {VISION}
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image", "source": source}]}
    assert EVERYTHING(chat({"type": "image", "source": source})).capabilities == {VISION}
    assert EVERYTHING(chat(result)).capabilities == {VISION}


def test_a_text_about_images_asks_for_nothing() -> None:
    text = 'send {"type":"image_url"} and "tools":[1] with "max_tokens":9'
    plain = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    assert EVERYTHING(plain) is NO_NEEDS
    assert (
        EVERYTHING(chat({"type": "text", "text": "image_url"}, {"type": "text", "text": '"image"'}))
        is NO_NEEDS
    )
    # The word stands there as a value of its own, and yet no part is of that kind.
    assert EVERYTHING(chat({"type": "text", "text": "image_url", "note": "image_url"})) is NO_NEEDS


def test_tools_count_when_they_may_be_called() -> None:
    assert EVERYTHING(chat(tools=[TOOL])).capabilities == {TOOLS}
    assert EVERYTHING(chat(tools=[TOOL], tool_choice="auto")).capabilities == {TOOLS}
    assert EVERYTHING(chat(tools=[TOOL], tool_choice="none")) is NO_NEEDS
    assert EVERYTHING(chat(tools=[])) is NO_NEEDS
    assert EVERYTHING(chat(tools=None)) is NO_NEEDS


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_the_longest_answer_is_read_with_its_field(field: str) -> None:
    assert EVERYTHING(chat(**{field: 4096})) == Needs(frozenset(), 4096, field)
    assert EVERYTHING(chat(**{field: None})) is NO_NEEDS


def test_only_what_matters_is_read() -> None:
    reader = NeedsReader(frozenset({VISION}), longest=None)
    assert reader(chat(part("input_audio"), tools=[TOOL], max_tokens=10)) is NO_NEEDS
    assert reader(chat(part("image_url"), part("input_audio"))) == Needs(frozenset({VISION}))


def test_an_answer_that_fits_matters_not() -> None:
    reader = NeedsReader(frozenset({VISION}), longest=100)
    assert reader(chat(max_tokens=100)) is NO_NEEDS
    assert reader(chat(max_tokens=101)) == Needs(frozenset(), 101, "max_tokens")
    assert reader(chat(part("image_url"), max_tokens=100)) == Needs(frozenset({VISION}))
    # The client's own field, above a smaller one under another name.
    assert reader(chat(max_tokens=100, max_completion_tokens=200)).tokens == 200
    assert reader(b'{"max_tokens":99999999999999999999}') is NO_NEEDS


def test_a_large_body_is_looked_into_only_for_a_model_that_cannot_see() -> None:
    picture = chat({"type": "image_url", "image_url": {"url": "A" * 100_000}}, part("input_audio"))
    large = memoryview(bytearray(picture))
    assert NeedsReader(frozenset({VISION, AUDIO}), longest=9)(large).capabilities == {VISION, AUDIO}
    assert NeedsReader(frozenset({AUDIO}), longest=9)(large) is NO_NEEDS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["image_url", "tools", "auto"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "content", "image_url", "text"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["messages", "input", "tools", "tool_choice", "max_tokens"]), JSON))
def test_no_body_makes_it_raise(body: dict[str, Any]) -> None:
    assert isinstance(EVERYTHING(json.dumps(body).encode()), Needs)


@given(st.binary(max_size=60))
def test_no_garbage_makes_it_raise(tail: bytes) -> None:
    assert isinstance(EVERYTHING(b'{"tools":[1],"messages":[{"content":[{"type":"image_url"}' + tail), Needs)


def test_a_model_that_does_everything_is_only_asked_for_the_length() -> None:
    reader = NeedsReader(frozenset(), longest=10)
    assert reader(chat(part("image_url"), tools=[TOOL])) is NO_NEEDS
    assert reader(chat(max_tokens=11)).tokens == 11
