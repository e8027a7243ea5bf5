"""A conversation's state: who said what, to which model. Pure but for `save`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.pictures import content_of


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, the pictures that came with it (`data:` URLs), and its answer."""

    question: str
    pictures: tuple[str, ...]
    answer: str


class Conversation:
    """The messages so far. A question without an answer is never kept, so that turns always alternate."""

    def __init__(self, model: str, *, system: str = "") -> None:
        self.model = model
        self.system = system
        self.sees = True
        """False: the model does not see, and pictures of earlier turns are left out."""
        self.pictures: list[str] = []
        """Go with the next question."""
        self._turns: list[Turn] = []

    @property
    def has_pictures(self) -> bool:
        """Some question had one, or the next will."""
        return bool(self.pictures) or any(turn.pictures for turn in self._turns)

    def request(self, question: str) -> dict[str, Any]:
        """The body that asks *question* after everything said before."""
        return {
            "model": self.model,
            "messages": self._messages(Turn(question, tuple(self.pictures), "")),
            "stream": True,
            # So that the daemon's token counts know of it.
            "stream_options": {"include_usage": True},
        }

    def answered(self, question: str, answer: str) -> None:
        """Keep the turn. An answer stopped half way is kept as far as it got; an empty one is not.

        Pictures of a question that was not answered stay for the next.
        """
        if answer:
            self._turns.append(Turn(question, tuple(self.pictures), answer))
            self.pictures.clear()

    def clear(self) -> None:
        """Forget what was said, pictures too; the system text and the model stay."""
        self._turns.clear()
        self.pictures.clear()

    def save(self, path: Path) -> int:
        """Write the messages as JSON in the API's shape; returns how many. Raises OSError."""
        messages = self._messages()
        text = json.dumps({"model": self.model, "messages": messages}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        return len(messages)

    def _messages(self, asked: Turn | None = None) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = [{"role": "system", "content": self.system}] if self.system else []
        for turn in (*self._turns, *((asked,) if asked is not None else ())):
            pictures = list(turn.pictures) if self.sees else []
            said.append({"role": "user", "content": content_of(turn.question, pictures)})
            if turn is not asked:
                said.append({"role": "assistant", "content": turn.answer})
        return said
