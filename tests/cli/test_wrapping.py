"""Answers folded at words while they come, judged by what a terminal then shows."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.wrapping import WordWrap, cells

MOVE = re.compile(r"\x1b\[(\d+)D\x1b\[K")


def screen(written: str) -> list[str]:
    """The lines of a terminal on which *written* was written; every move back has to stay on its line."""
    lines = [""]
    while written:
        if move := MOVE.match(written):
            back = int(move[1])
            while back:
                back -= cells(lines[-1][-1])
                lines[-1] = lines[-1][:-1]
            assert back == 0
            written = written[move.end() :]
        elif written[0] == "\n":
            lines.append("")
            written = written[1:]
        else:
            lines[-1] += written[0]
            written = written[1:]
    return lines


def shown(columns: int, *pieces: str) -> list[str]:
    wrap = WordWrap(columns)
    return screen("".join(wrap.feed(piece) for piece in pieces))


def test_a_word_that_crosses_the_edge_is_taken_to_the_next_line() -> None:
    assert shown(10, "one two three") == ["one two", "three"]
    assert shown(10, "one", " tw", "o th", "re", "e") == ["one two", "three"]


def test_a_word_is_seen_as_it_comes() -> None:
    wrap = WordWrap(10)
    assert [wrap.feed("one two t"), wrap.feed("h"), wrap.feed("ree")] == [
        "one two t",
        "\x1b[1D\x1b[K\nth",
        "ree",
    ]


def test_lines_and_indents_of_the_text_stay() -> None:
    assert shown(12, "a list:\n  - one\n\n  - two and more\n") == [
        *("a list:", "  - one", "", "  - two and", "more", "")
    ]


def test_a_word_longer_than_a_line_is_left_to_the_terminal() -> None:
    assert shown(8, "see https://example.org/x or") == ["see", "https://example.org/x", "or"]


def test_code_is_left_as_it_is() -> None:
    code = "```sh\nmodelyard load --json qwen3-8b   # long\n```\nand then words"
    assert shown(10, code)[:3] == ["```sh", "modelyard load --json qwen3-8b   # long", "```"]
    assert shown(10, code)[3:] == ["and then", "words"]


def test_wide_characters_take_two_columns() -> None:
    assert shown(10, "ja 日本語 です") == ["ja 日本語", "です"]


def test_where_there_is_no_terminal_nothing_changes() -> None:
    assert WordWrap(0).feed("a  b\n\n c ") == "a  b\n\n c "


WORDS = st.text(alphabet="ab日 \n", max_size=60)


@given(WORDS, st.integers(6, 20), st.lists(st.integers(1, 5), min_size=1))
def test_no_word_is_lost_and_no_line_is_too_long(text: str, columns: int, sizes: list[int]) -> None:
    pieces: list[str] = []
    at = 0
    while at < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[at : at + size])
        at += size
    lines = shown(columns, *pieces)
    assert " ".join(lines).split() == text.split()
    for line in lines:
        assert cells(line) < columns or len(line.split()) == 1


@pytest.mark.parametrize("text", ["", " ", "\n", "a\n"])
def test_small_texts(text: str) -> None:
    assert "\n".join(shown(10, text)) == text.replace(" ", "")
