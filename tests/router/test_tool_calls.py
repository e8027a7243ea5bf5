"""What families write when they call a tool, through the filter, read by OpenAI's own SDK, streamed and not.

The texts are what the models write, as their templates and cards have it; the envelopes are those of mlx-lm,
vllm-mlx and vLLM.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from router.call_text import CallFormat
from router.echo import ModelEcho
from router.tool_calls import ToolCallFilter, tools_of

SHAPES = {"get_weather": {"city": "string", "days": "integer"}, "now": {}}

SAID = "I will look it up."
CALL = {"city": "Paris", "days": 2}

FILTERED: dict[str, tuple[CallFormat, str, list[tuple[str, dict[str, Any]]]]] = {
    "Hermes 3": (
        "tags",
        f'{SAID}\n<tool_call>\n{{"name": "get_weather", "arguments": {json.dumps(CALL)}}}\n</tool_call>',
        [("get_weather", CALL)],
    ),
    "Qwen3, two calls": (
        "tags",
        (
            f'{SAID}\n\n<tool_call>\n{{"name": "get_weather", "arguments": {json.dumps(CALL)}}}\n</tool_call>'
            '\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
        ),
        [("get_weather", CALL), ("now", {})],
    ),
    "Qwen3-Coder": (
        "tags",
        (
            f"{SAID}\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
            "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"
        ),
        [("get_weather", CALL)],
    ),
    "Gemma 3": (
        "tool_code",
        f'{SAID}\n\n```tool_code\nget_weather(city="Paris", days=2)\n```\n',
        [("get_weather", CALL)],
    ),
    "Gemma 3, printed": (
        "tool_code",
        f"{SAID}\n```tool_code\nprint(get_weather('Paris', days=2))\nnow()\n```",
        [("get_weather", CALL), ("now", {})],
    ),
    "gpt-oss": (
        "harmony",
        (
            "<|channel|>analysis<|message|>The weather.<|end|><|start|>assistant<|channel|>commentary"
            f"<|message|>{SAID}<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
            f"<|constrain|>json<|message|>{json.dumps(CALL)}<|call|>"
        ),
        [("get_weather", CALL)],
    ),
    "Llama 3.1": (
        "json",
        f'<|python_tag|>{{"name": "get_weather", "parameters": {json.dumps(CALL)}}}',
        [("get_weather", CALL)],
    ),
    "Llama 3.2, two calls": (
        "json",
        f'{{"name": "get_weather", "parameters": {json.dumps(CALL)}}}; {{"name": "now", "parameters": {{}}}}',
        [("get_weather", CALL), ("now", {})],
    ),
}

FOREIGN = {
    # What engines with a parser of their own do not leave in the text, and what is not ours if one does.
    "Gemma 4": '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:2}<tool_call|>',
    "Llama 3.1": '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris", "days": 2}}',
    "Llama 3.2": '[get_weather(city="Paris", days=2)]',
    "Mistral": '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}]',
    "Mistral Small 3.2": '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris", "days": 2}',
    "gpt-oss": '<|channel|>commentary to=functions.now <|constrain|>json<|message|>{"x":"Paris"}<|call|>',
    "plain": "Use `<` for less than,\n```python\nprint(1)\n```\nand so on. ",
}


def document(content: str | None, **message: Any) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **message},
        "finish_reason": "tool_calls" if message else "stop",
    }
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
    ).encode()


def event(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **more,
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def stream(text: str, *, size: int, end_with_text: bool = False) -> bytes:
    """*text* in deltas of *size* characters, as an engine streams it."""
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    usage = {"usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}
    events = [b": keepalive 1/2\n\n", event({"role": "assistant", "content": ""})]
    events += [event({"content": part}) for part in (parts[:-1] if end_with_text else parts)]
    events.append(event({"content": parts[-1] if end_with_text else ""}, "stop", **usage))
    return b"".join(events) + b"data: [DONE]\n\n"


def made(call_format: CallFormat, **more: Any) -> ToolCallFilter:
    ids = itertools.count()
    return ToolCallFilter(call_format, SHAPES, new_id=lambda: f"call_{next(ids)}", **more)


def chunks(data: bytes) -> Iterator[ChatCompletionChunk]:
    """The events as the SDK reads them; what it would not take fails here."""
    lines = [line for line in data.split(b"\n\n") if line.startswith(b"data:")]
    assert lines[-1] == b"data: [DONE]"
    for line in lines[:-1]:
        yield ChatCompletionChunk.model_validate_json(line[5:], strict=True)


def final(data: bytes) -> ChatCompletion:
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks(data):
        state.handle_chunk(chunk)
    return state.get_final_completion()


def calls_of(answer: ChatCompletion) -> list[tuple[str, Any]]:
    found = answer.choices[0].message.tool_calls or []
    assert len({call.id for call in found}) == len(found)
    return [
        (call.function.name, json.loads(call.function.arguments)) for call in found if call.type == "function"
    ]


@pytest.mark.parametrize("name", FILTERED)
def test_a_document(name: str) -> None:
    call_format, text, calls = FILTERED[name]
    changed = made(call_format).replace_once(document(text))
    assert changed is not None
    answer = ChatCompletion.model_validate_json(changed, strict=True)
    assert calls_of(answer) == calls
    assert (answer.choices[0].message.content or None) == (SAID if SAID in text else None)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 14


@pytest.mark.parametrize("end_with_text", [False, True])
@pytest.mark.parametrize(("size", "cut"), [(1, 1), (3, 10), (8, 4096), (1000, 7)])
@pytest.mark.parametrize("name", FILTERED)
def test_a_stream(name: str, size: int, cut: int, end_with_text: bool) -> None:
    call_format, text, calls = FILTERED[name]
    raw = stream(text, size=size, end_with_text=end_with_text)
    filtered = made(call_format)
    out = b"".join(filtered.feed(raw[at : at + cut]) for at in range(0, len(raw), cut)) + filtered.flush()
    answer = final(out)
    assert calls_of(answer) == calls
    assert (answer.choices[0].message.content or None) == (SAID if SAID in text else None)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert out.startswith(b": keepalive 1/2\n\n")
    (used,) = [chunk for chunk in chunks(out) if chunk.usage is not None]
    assert used.choices[0].finish_reason == "tool_calls"


def test_the_thoughts_of_channels_are_not_the_answer() -> None:
    text = "<|channel|>analysis<|message|>They ask.<|end|><|start|>assistant<|channel|>final<|message|>I am."
    changed = made("harmony").replace_once(document(text))
    assert changed is not None
    message = json.loads(changed)["choices"][0]
    assert (message["message"]["reasoning"], message["message"]["content"]) == ("They ask.", "I am.")
    assert message["finish_reason"] == "stop"
    deltas = [chunk.choices[0].delta for chunk in chunks(made("harmony").feed(stream(text, size=5)))]
    assert "".join(delta.content or "" for delta in deltas) == "I am."
    assert "".join((delta.model_extra or {}).get("reasoning", "") for delta in deltas) == "They ask."


def test_a_call_is_its_name_then_its_arguments() -> None:
    call_format, text, _ = FILTERED["Hermes 3"]
    filtered = made(call_format)
    deltas = [
        chunk.choices[0].delta for chunk in chunks(filtered.feed(stream(text, size=9)) + filtered.flush())
    ]
    first, second = (delta.tool_calls[0] for delta in deltas if delta.tool_calls)
    assert (first.index, first.id, first.type) == (0, "call_0", "function")
    assert first.function is not None
    assert (first.function.name, first.function.arguments) == ("get_weather", "")
    assert second.function is not None
    assert (second.index, second.id, json.loads(second.function.arguments or "")) == (0, None, CALL)


@pytest.mark.parametrize("call_format", ["tags", "tool_code"])
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_call_of_that_format_passes(name: str, call_format: CallFormat) -> None:
    text = FOREIGN[name]
    assert made(call_format).replace_once(document(text)) is None
    for size in (1, 5, 1000):
        filtered = made(call_format)
        answer = final(filtered.feed(stream(text, size=size)) + filtered.flush())
        assert answer.choices[0].message.content == text
        assert answer.choices[0].message.tool_calls is None
        assert answer.choices[0].finish_reason == "stop"


NATIVE = [{"id": "x", "type": "function", "index": 0, "function": {"name": "now", "arguments": "{}"}}]


def test_what_an_engine_has_parsed_itself_passes_byte_for_byte() -> None:
    assert made("tags").replace_once(document(None, tool_calls=NATIVE)) is None
    assert made("tags").replace_once(document("<tool_call>{}</tool_call>", tool_calls=NATIVE)) is None
    raw = event({"role": "assistant", "content": None}) + event({"tool_calls": NATIVE})
    raw += event({"reasoning": "hm"}) + event({}, "tool_calls") + b"data: [DONE]\n\n"
    filtered = made("tags")
    assert filtered.feed(raw) + filtered.flush() == raw


def test_text_that_cannot_be_a_call_passes_byte_for_byte() -> None:
    raw = (
        event({"role": "assistant", "content": ""})
        + event({"content": "Hello,"})
        + event({"content": " you."})
    )
    filtered = made("tags")
    assert filtered.feed(raw) == raw
    assert filtered.flush() == b""


def test_two_choices_are_kept_apart() -> None:
    filtered, out = made("tags"), b""
    for index, part in ((0, "<tool_call>"), (1, "plain"), (0, '{"name":"now"}</tool_call>'), (1, " text")):
        chunk = json.loads(event({"content": part})[5:])
        chunk["choices"][0]["index"] = index
        out += filtered.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    found: dict[int, list[str]] = {0: [], 1: []}
    for line in out.split(b"\n\n")[:-1]:
        (choice,) = json.loads(line[5:])["choices"]
        found[choice["index"]].append("".join(choice["delta"]))
    assert found == {0: ["tool_calls", "tool_calls"], 1: ["content", "content"]}


def test_a_stream_that_ends_without_a_reason_says_what_it_held() -> None:
    filtered = made("tags")
    raw = event({"content": "a <tool_"}) + b"data: [DONE]\n\n"
    answer = final(filtered.feed(raw) + filtered.flush())
    assert answer.choices[0].message.content == "a <tool_"


def test_the_models_name_is_put_in_as_well() -> None:
    call_format, text, calls = FILTERED["Hermes 3"]
    changed = made(call_format, echo=ModelEcho("m", "asked")).replace_once(document(text))
    assert changed is not None
    assert json.loads(changed)["model"] == "asked"
    assert calls_of(ChatCompletion.model_validate_json(changed)) == calls
    plain = made(call_format, echo=ModelEcho("m", "asked")).replace_once(document("hi"))
    assert plain is not None
    assert json.loads(plain)["model"] == "asked"
    filtered = made(call_format, echo=ModelEcho("m", "asked"))
    out = filtered.feed(stream(text, size=6)) + filtered.flush()
    assert {chunk.model for chunk in chunks(out)} == {"asked"}
    assert calls_of(final(out)) == calls


ODD = [
    b"data: {broken\n\n",
    b"data: []\n\n",
    b'data: {"choices":7}\n\n',
    b'data: {"choices":[7]}\n\n',
    b'data: {"error":{"message":"x"}}\n\n',
    b"event: x\ndata: 1\n\n",
]


@pytest.mark.parametrize("data", ODD)
def test_what_is_not_understood_passes(data: bytes) -> None:
    assert made("tags").feed(data) == data


def test_an_event_without_an_end_is_not_kept_without_end() -> None:
    filtered = made("tags")
    passed = sum(len(filtered.feed(b"x" * 100_000)) for _ in range(20))
    assert passed == 2_000_000


# -- the request's tools ---------------------------------------------------------------------------


def asked(**body: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [], **body}).encode()


def test_the_requests_tools_are_read_with_the_types_of_their_parameters() -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "x": {"anyOf": []}, "y": {"type": ["a"]}},
    }
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": schema}},
        {"type": "function", "function": {"name": "g"}},
    ]
    shapes = {"f": {"city": "string", "x": "", "y": '["a"]'}, "g": {}}
    assert tools_of(asked(tools=tools)) == shapes
    assert tools_of(memoryview(bytearray(asked(tools=tools, tool_choice="auto")))) == shapes


def test_without_tools_there_is_nothing_to_look_for() -> None:
    tools = [{"type": "function", "function": {"name": "g"}}]
    assert tools_of(asked()) is None
    assert tools_of(asked(tools=[])) is None
    assert tools_of(asked(tools=tools, tool_choice="none")) is None
    assert tools_of(asked(tools=[{"type": "web_search"}])) is None
