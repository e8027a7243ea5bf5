"""A conversation's messages."""

from __future__ import annotations

import json
from pathlib import Path

from cli.conversation import Conversation


def test_a_question_carries_the_system_text_and_what_was_said() -> None:
    talk = Conversation("m", system="be brief")
    talk.answered("a?", "b.")
    assert talk.request("c?") == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a?"},
            {"role": "assistant", "content": "b."},
            {"role": "user", "content": "c?"},
        ],
    }


def test_a_question_without_an_answer_is_not_kept() -> None:
    talk = Conversation("m")
    talk.answered("a?", "")
    assert talk.request("b?")["messages"] == [{"role": "user", "content": "b?"}]


def test_clear_keeps_the_system_text() -> None:
    talk = Conversation("m", system="s")
    talk.answered("a?", "b.")
    talk.clear()
    assert [message["role"] for message in talk.request("c?")["messages"]] == ["system", "user"]


def test_save_writes_the_messages_in_the_apis_shape(tmp_path: Path) -> None:
    talk = Conversation("m")
    talk.answered("wie?", "schön.")
    assert talk.save(tmp_path / "talk.json") == 2
    saved = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert saved == {
        "model": "m",
        "messages": [{"role": "user", "content": "wie?"}, {"role": "assistant", "content": "schön."}],
    }
