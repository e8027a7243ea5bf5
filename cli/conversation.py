"""A conversation's state: who said what, to which model. Pure but for `save`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Conversation:
    """The messages so far. A question without an answer is never kept, so that turns always alternate."""

    def __init__(self, model: str, *, system: str = "") -> None:
        self.model = model
        self.system = system
        self._turns: list[tuple[str, str]] = []

    def request(self, question: str) -> dict[str, Any]:
        """The body that asks *question* after everything said before."""
        return {
            "model": self.model,
            "messages": self._messages(question),
            "stream": True,
            # So that the daemon's token counts know of it.
            "stream_options": {"include_usage": True},
        }

    def answered(self, question: str, answer: str) -> None:
        """Keep the turn. An answer stopped half way is kept as far as it got; an empty one is not."""
        if answer:
            self._turns.append((question, answer))

    def clear(self) -> None:
        """Forget what was said; the system text and the model stay."""
        self._turns.clear()

    def save(self, path: Path) -> int:
        """Write the messages as JSON in the API's shape; returns how many. Raises OSError."""
        messages = self._messages()
        text = json.dumps({"model": self.model, "messages": messages}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        return len(messages)

    def _messages(self, question: str | None = None) -> list[dict[str, str]]:
        said = [{"role": "system", "content": self.system}] if self.system else []
        for asked, answer in self._turns:
            said += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        if question is not None:
            said.append({"role": "user", "content": question})
        return said
