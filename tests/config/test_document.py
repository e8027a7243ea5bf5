"""YAML to values with lines."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.document import DocumentError, dotted, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: off", {"a": "off"}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: 0.90", {"a": "0.90"}),
        ("a: 010", {"a": "010"}),
        ("a: 2024-01-01", {"a": "2024-01-01"}),
        ("a: -3", {"a": -3}),
        ("a: true", {"a": True}),
        ("a:", {"a": None}),
        ("a: '5'", {"a": "5"}),
        ("1: x", {"1": "x"}),
        ("d: &d {x: 1, y: 2}\ne: {<<: *d, y: 3}", {"d": {"x": 1, "y": 2}, "e": {"y": 3, "x": 1}}),
        ("a: &a [1, 2]\nb: *a", {"a": [1, 2], "b": [1, 2]}),
    ],
)
def test_scalars_follow_yaml_1_2_and_aliases_are_expanded(text: str, value: object) -> None:
    assert parse(text).value == value


def test_every_key_and_item_knows_its_line() -> None:
    document = parse("a:\n  b:\n    - x\n    - y\nc: 1\n")
    assert document.line_of(("a", "b", 1)) == 4
    assert document.line_of(("c",)) == 5
    assert document.line_of(("a", "missing", "deeper")) == 1
    assert document.line_of(()) == 1


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "already on line 1"),
        ("m:\n  x: 1\n  x: 2\n", 3, "already on line 2"),
        ("a: [1\nb: 2", 2, "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", 1, "tag"),
        ("a: !!timestamp 2024-01-01", 1, "tag"),
        ("[1, 2]: x", 1, "a key must be a word"),
        ("a: {<<: 3}", 1, "<< takes a mapping"),
        ("a: \x07", 1, "not allowed"),
        ("a: *nobody", 1, "undefined alias"),
    ],
)
def test_what_we_do_not_take_is_refused_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(DocumentError) as refused:
        parse(text)
    assert says in refused.value.what
    assert refused.value.line == line


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(DocumentError, match="aliases"):
        parse("\n".join(levels))


def test_an_alias_to_itself_is_refused() -> None:
    with pytest.raises(DocumentError, match="nested deeper"):
        parse("a: &a [*a]")


@pytest.mark.parametrize("depth", [60, 100_000])
def test_deep_nesting_is_refused_where_it_goes_too_deep(depth: int) -> None:
    with pytest.raises(DocumentError, match="nested deeper") as caught:
        parse("[\n" * depth + "]" * depth)
    assert caught.value.line == 52
    parse("[" * 50 + "]" * 50)


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(DocumentError):
        parse(text)


def test_paths_are_written_as_people_write_them() -> None:
    assert dotted(("models", "qwen2.5", "args", 2)) == 'models."qwen2.5".args[2]'
