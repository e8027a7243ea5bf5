"""Streamed answers: what their lines mean."""

from __future__ import annotations

import json

import pytest

from cli.answer import Done, Failed, Finish, Note, Piece, Usage, parts
from tests.support.daemon_stub import words


def test_pieces_come_in_order_and_end_with_done() -> None:
    assert list(parts(words("Hel", "lo"))) == [Piece("Hel"), Piece("lo"), Done()]


def test_comments_are_notes_and_the_engines_keepalives_are_not() -> None:
    lines = [": loading yard-demo 42%", "", ": keepalive 12/13", "", *words("hi")]
    assert list(parts(lines)) == [Note("loading yard-demo 42%"), Piece("hi"), Done()]


def test_a_stream_that_just_stops_has_no_done() -> None:
    assert list(parts(words("half", done=False))) == [Piece("half")]


def test_an_error_event_ends_the_answer() -> None:
    lines = [
        *words("half", done=False),
        'data: {"error": {"message": "the engine died", "code": "engine_failed"}}',
        "",
        *words("late"),
    ]
    assert list(parts(lines)) == [Piece("half"), Failed("the engine died", "engine_failed")]


def test_an_error_event_of_another_shape_keeps_its_words() -> None:
    assert list(parts(['data: {"error": "generation thread died"}', ""])) == [
        Failed("generation thread died")
    ]


def test_nothing_after_done_is_read() -> None:
    assert list(parts([*words("a"), *words("b")])) == [Piece("a"), Done()]


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_is_told_apart(key: str) -> None:
    event = json.dumps({"choices": [{"delta": {key: "hm", "content": "yes"}}]})
    assert list(parts([f"data: {event}", ""])) == [Piece("hm", thinking=True), Piece("yes")]


def test_an_event_over_several_data_lines_is_one_event() -> None:
    assert list(parts(['data: {"choices": [{"delta":', 'data: {"content": "x"}}]}', ""])) == [Piece("x")]


def test_usage_without_choices_is_usage_and_no_text() -> None:
    assert list(parts(['data: {"choices": [], "usage": {"total_tokens": 3}}', "", "data: [DONE]", ""])) == [
        Usage({"total_tokens": 3}),
        Done(),
    ]


def test_why_the_model_stopped_comes_after_its_last_words() -> None:
    event = 'data: {"choices": [{"delta": {"content": "so"}, "finish_reason": "length"}]}'
    assert list(parts([event, "", "data: [DONE]", ""])) == [Piece("so"), Finish("length"), Done()]


def test_a_completion_says_its_text_beside_no_delta() -> None:
    assert list(parts(['data: {"choices": [{"text": "so"}]}', "", "data: [DONE]", ""])) == [
        Piece("so"),
        Done(),
    ]


def test_what_is_no_json_is_a_failure_that_shows_it() -> None:
    (failed,) = parts(["data: <html>", ""])
    assert isinstance(failed, Failed)
    assert "<html>" in failed.message


def test_a_last_event_without_its_empty_line_still_counts() -> None:
    assert list(parts(["data: [DONE]"])) == [Done()]
