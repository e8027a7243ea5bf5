"""Prints an answer as it comes and keeps what it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cli import terminal
from cli.answer import Done, Failed, Finish, Note, Part, Piece, Usage
from cli.errors import CliError, RefusedError
from cli.wrapping import WordWrap


class AnswerPrinter:
    """Prints parts of an answer (unless *silent*) and collects them."""

    def __init__(self, *, silent: bool = False) -> None:
        self.answer = ""
        self.reasoning = ""
        self.finish_reason = ""
        self.usage: Mapping[str, Any] | None = None
        self._silent = silent
        self._wrap = WordWrap(terminal.columns(sys.stdout))
        self._thinking = False
        self._last = ""
        """The end of what was printed."""

    def print_all(
        self, stream: Iterable[Part], *, on_note: Callable[[str], None], on_first: Callable[[], None]
    ) -> None:
        """Until the end. Raises CliError for an error event and for an answer without an end."""
        for part in stream:
            match part:
                case Note(text):
                    on_note(text)
                case Failed(message, code):
                    raise RefusedError(message, code=code)
                case Finish(reason):
                    self.finish_reason = reason
                case Usage(counts):
                    self.usage = counts
                case Done():
                    return
                case Piece():
                    self._take(part, on_first)
        raise CliError("the answer was cut: it ended without the mark that says it is complete")

    def end(self) -> None:
        """Finish the line, so that what follows starts on its own."""
        if self._last and not self._last.endswith("\n"):
            sys.stdout.write("\n")
        sys.stdout.flush()

    def _take(self, piece: Piece, on_first: Callable[[], None]) -> None:
        if piece.thinking:
            self.reasoning += piece.text
        else:
            self.answer += piece.text
        # A program that reads the answer does not want the way to it.
        if self._silent or (piece.thinking and not sys.stdout.isatty()):
            return
        if not self._last:
            on_first()
        if self._thinking and not piece.thinking:
            sys.stdout.write(self._wrap.feed("\n\n"))
        self._thinking = piece.thinking
        self._last = piece.text or self._last
        text = self._wrap.feed(piece.text)
        sys.stdout.write(terminal.dim(text, sys.stdout) if piece.thinking else text)
        sys.stdout.flush()
