"""Tool calls found in a model's text, however it is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.bare_calls import BareCalls
from router.call_text import MOST_CALL, Call, CallFormat, CallText, Piece, Thought
from router.harmony import MOST_HEADER, Harmony
from router.tool_calls import reader_of

SHAPES = {
    "get_weather": {"city": "string", "days": "integer", "metric": "boolean"},
    "write_file": {"path": "string", "content": "string"},
    "now": {},
}


def read(text: str, call_format: CallFormat, *, step: int = 0) -> list[Piece]:
    """The pieces of *text*, fed *step* characters at a time (0: at once), neighbouring texts joined."""
    found = reader_of(call_format, SHAPES)
    parts = [text] if not step else [text[at : at + step] for at in range(0, len(text), step)]
    pieces = [piece for part in parts for piece in found.feed(part)] + found.flush()
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, str) and isinstance(last, str):
            joined[-1] = last + piece
        elif isinstance(piece, Thought) and isinstance(last, Thought):
            joined[-1] = Thought(last.text + piece.text)
        else:
            joined.append(piece)
    return joined


def call(name: str, **arguments: Any) -> tuple[str, Any]:
    return name, arguments


def plain(pieces: list[Piece]) -> list[Any]:
    return [
        (piece.name, json.loads(piece.arguments)) if isinstance(piece, Call) else piece for piece in pieces
    ]


TAGS = {
    'Look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}}\n</tool_call>': [
        "Look.",
        call("get_weather", city="Zürich", days=2),
    ],
    '<tool_call>{"name": "now", "arguments": {}}</tool_call>\n<tool_call>{"name": "now"}</tool_call>\n': [
        call("now"),
        call("now"),
    ],
    # Several in one pair of tags, arguments as text, an end that never came.
    '<tool_call>\n{"name":"now","arguments":"{}"}\n{"name":"now","parameters":{"a":null}}': [
        call("now"),
        call("now", a=None),
    ],
    "<tool_call>\n<function=get_weather>\n<parameter=city>\n12\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
    "<parameter=metric>\nTrue\n</parameter>\n</function>\n</tool_call>": [
        call("get_weather", city="12", days=3, metric=True)
    ],
    "<tool_call>\n<function=write_file>\n<parameter=path>\n a\n\n<b>\n</parameter></function></tool_call>": [
        call("write_file", path=" a\n\n<b>")
    ],
    "<tool_call>\n<function=unheard_of>\n<parameter=x>\n[1, 2]\n</parameter>\n<parameter=y>\nword\n"
    "</parameter>\n</function>\n</tool_call>": [call("unheard_of", x=[1, 2], y="word")],
    "a <tool_ b <tool_call> no call </tool_call> c": ["a <tool_ b <tool_call> no call </tool_call> c"],
    '<tool_call>["list"]</tool_call>': ['<tool_call>["list"]</tool_call>'],
    "1 < 2 and nothing else <": ["1 < 2 and nothing else <"],
    "": [],
}

CODE = {
    'Sure.\n\n```tool_code\nget_weather(city="Paris", days=2)\n```': [
        "Sure.",
        call("get_weather", city="Paris", days=2),
    ],
    "```tool_code\nprint(get_weather('Paris', 3, metric=True))\n```\n": [
        call("get_weather", city="Paris", days=3, metric=True)
    ],
    "```tool_code\nnow()\nget_weather(city='a')\n```": [call("now"), call("get_weather", city="a")],
    "```tool_code\n[now(), get_weather(city='a', metric=false)]\n```": [
        call("now"),
        call("get_weather", city="a", metric=False),
    ],
    "```tool_code\nx = write_file(path='a', content='b\\nc')": [call("write_file", path="a", content="b\nc")],
    # Code that is no call of a tool is what the person asked for.
    "```tool_code\nfor x in y: now()\n```": ["```tool_code\nfor x in y: now()\n```"],
    "```tool_code\nimport os\n```": ["```tool_code\nimport os\n```"],
    "```tool_code\nos.system('ls')\n```": ["```tool_code\nos.system('ls')\n```"],
    "```tool_code\nget_weather(city=open('x'))\n```": ["```tool_code\nget_weather(city=open('x'))\n```"],
    "```tool_code\nnow(1)\n```": ["```tool_code\nnow(1)\n```"],
    "```python\nnow()\n```": ["```python\nnow()\n```"],
    "```tool_code\n" + "(" * 200 + "\n```": ["```tool_code\n" + "(" * 200 + "\n```"],
}


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 50])
@pytest.mark.parametrize("text", TAGS)
def test_tags(text: str, step: int) -> None:
    assert plain(read(text, "tags", step=step)) == TAGS[text]


BARE = {
    '{"name": "get_weather", "parameters": {"city": "Zürich", "days": 2}}': [
        call("get_weather", city="Zürich", days=2)
    ],
    '\n<|python_tag|>{"name": "now", "parameters": {}}; {"name": "now", "arguments": {"a": {"b": [1]}}}\n': [
        call("now"),
        call("now", a={"b": [1]}),
    ],
    '{"type": "function", "name": "now", "parameters": {}}\n{"name":"now","parameters":null}': [
        call("now"),
        call("now"),
    ],
    # Braces in text, opened and never closed, closed and never opened.
    '{"name": "write_file", "parameters": {"content": "if (x) {\\n"}}': [
        call("write_file", content="if (x) {\n")
    ],
    '{"name": "write_file", "parameters": {"content": "}} {"}};{"name":"now"}': [
        call("write_file", content="}} {"),
        call("now"),
    ],
    # No calls: text, other objects, tools that nobody offered, what is cut off.
    'So: {"name": "now", "parameters": {}}': ['So: {"name": "now", "parameters": {}}'],
    '{"answer": 42}': ['{"answer": 42}'],
    '{"name": "Ada", "parameters": {}} {"x"': ['{"name": "Ada", "parameters": {}} {"x"'],
    '{"name": "now", "parameters": {': ['{"name": "now", "parameters": {'],
    '<|python_tag|>print("x")': ['<|python_tag|>print("x")'],
    "{": ["{"],
    "<|pyth": ["<|pyth"],
    "{ }": ["{ }"],
    '{"name": "now", "parameters": {}} That is all.': [call("now"), " That is all."],
}


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 50])
@pytest.mark.parametrize("text", BARE)
def test_an_answer_that_is_a_call(text: str, step: int) -> None:
    assert plain(read(text, "json", step=step)) == BARE[text]


def test_an_answer_in_json_flows_on_as_soon_as_it_is_no_call() -> None:
    found = BareCalls(SHAPES)
    assert found.feed('{"na') == []
    assert found.feed('tion": "Oslo') == ['{"nation": "Oslo']
    assert found.feed('"}') == ['"}']
    found = BareCalls(SHAPES)
    assert found.feed('{"name": "Ada"') == []
    assert found.feed("}") == ['{"name": "Ada"}']


def test_an_answer_that_may_be_a_call_is_bounded() -> None:
    found = BareCalls(SHAPES)
    begin = '{"name": "write_file", "parameters": {"content": "'
    assert found.feed(begin) == []
    assert found.feed("x" * MOST_CALL) == [begin + "x" * MOST_CALL]


THINK = "<|channel|>analysis<|message|>They ask < me.<|end|><|start|>assistant"
WEATHER = '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Zürich"}'
CHANNELS = {
    f"{THINK}{WEATHER}<|call|>": [Thought("They ask < me."), call("get_weather", city="Zürich")],
    # The mark at the end is often left out: it ends the generation.
    f"{THINK}{WEATHER}": [Thought("They ask < me."), call("get_weather", city="Zürich")],
    f"{THINK}<|channel|>final<|message|>I < you.": [Thought("They ask < me."), "I < you."],
    f"<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant{WEATHER}<|call|>": [
        "Let me look.",
        call("get_weather", city="Zürich"),
    ],
    # The function may be named before the channel; several calls; no mark between two messages.
    "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}<|call|>"
    '<|start|>assistant<|channel|>commentary to=functions.now<|message|>{"a": 1}<|start|>assistant'
    "<|channel|>final<|message|>Done.<|return|>": [call("now"), call("now", a=1), "Done."],
    "<|channel|>analysis to=python <|constrain|>code<|message|>print(1)<|call|>": [Thought("print(1)")],
    # What is no message, or no call.
    "Hello, <|you|> and <": ["Hello, <|you|> and <"],
    "<|channel|>final": ["<|channel|>final"],
    f"{WEATHER[:-1]}": [WEATHER[:-1]],
    f"{WEATHER}}}<|call|>Bye": [f"{WEATHER}}}Bye"],
}


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 50])
@pytest.mark.parametrize("text", CHANNELS)
def test_channels(text: str, step: int) -> None:
    assert plain(read(text, "harmony", step=step)) == CHANNELS[text]


def test_what_a_channel_says_flows_on_at_once() -> None:
    found = Harmony()
    assert found.feed("<|channel|>analysis<|message|>They") == [Thought("They")]
    assert found.feed(" ask. <|en") == [Thought(" ask. ")]
    assert found.feed("d|><|start|>assistant<|channel|>final<|message|>") == []
    assert found.feed("I ") == ["I "]
    assert found.feed("am") == ["am"]


def test_headers_and_calls_are_bounded() -> None:
    found = Harmony()
    begin = "<|channel|>"
    assert found.feed(begin) == []
    assert found.feed("x" * MOST_HEADER) == [begin + "x" * MOST_HEADER]
    assert found.feed("y") == ["y"]
    found = Harmony()
    assert found.feed(WEATHER) == []
    assert read_all(found.feed("x" * MOST_CALL)) == WEATHER + "x" * MOST_CALL
    assert found.feed("y") == ["y"]


def read_all(pieces: list[Piece]) -> str:
    return "".join(piece if isinstance(piece, str) else repr(piece) for piece in pieces)


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 50])
@pytest.mark.parametrize("text", CODE)
def test_fenced_code(text: str, step: int) -> None:
    assert plain(read(text, "tool_code", step=step)) == CODE[text]


def test_text_before_a_call_flows_on_at_once() -> None:
    found = CallText("tags", SHAPES)
    assert found.feed("Let me look") == ["Let me look"]
    assert found.feed(" that up. ") == [" that up."]
    assert found.feed("<tool") == []
    assert found.feed("s> no") == [" <tools> no"]
    assert found.feed(' <tool_call>{"name":"now"}') == []
    assert found.feed("</tool_call>") == [Call("now", "{}")]


def test_a_call_is_bounded() -> None:
    found = CallText("tags", SHAPES)
    assert found.feed("<tool_call>") == []
    pieces = found.feed("x" * (MOST_CALL + 1))
    assert pieces == ["<tool_call>" + "x" * (MOST_CALL + 1)]
    assert found.feed("y") == ["y"]


def test_white_space_without_end_is_not_kept_without_end() -> None:
    found = CallText("tags", SHAPES)
    assert sum(len(str(piece)) for _ in range(30) for piece in found.feed(" " * 10_000)) > 2 * MOST_CALL


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.sampled_from(
            [
                "<tool_call>",
                "</tool_call>",
                '{"name":"now"}',
                "```tool_code\n",
                "<|python_tag|>",
                "<|channel|>analysis",
                "<|channel|>final<|message|>",
                "<|channel|>commentary to=functions.now<|message|>{}",
                "<|call|>",
                "<|start|>",
                "; ",
                "now()",
                "\n```",
                "text ",
                "<",
                "`",
                "\n",
                " ",
            ]
        ),
        max_size=12,
    ).map("".join),
    st.sampled_from(["tags", "tool_code", "json", "harmony"]),
    st.integers(1, 9),
)
def test_how_the_text_is_cut_changes_nothing(text: str, call_format: CallFormat, step: int) -> None:
    whole, cut = read(text, call_format), read(text, call_format, step=step)
    assert [p for p in cut if isinstance(p, Call)] == [p for p in whole if isinstance(p, Call)]
    assert "".join("".join(p.split()) for p in cut if isinstance(p, str)) == "".join(
        "".join(p.split()) for p in whole if isinstance(p, str)
    )


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=60), st.sampled_from(["tags", "tool_code", "json", "harmony"]))
def test_no_text_makes_it_raise(text: str, call_format: CallFormat) -> None:
    openers = {
        "tags": "<tool_call>",
        "tool_code": "```tool_code",
        "json": '{"name": ',
        "harmony": "<|channel|>",
    }
    read(openers[call_format] + text, call_format)
    assert "".join(str(piece) for piece in read(text, call_format)) == text
