"""Folds text at words while it is still coming, so that an answer at a terminal can be read. Pure."""

from __future__ import annotations

import re
from typing import Final

FENCE: Final = "```"
"""Code is left to the terminal, which folds it without changing what is copied from it."""

_PARTS: Final = re.compile(r"\n|[^\S\n]+|\S+")


class WordWrap:
    """What has to be written for each piece of a text; a word that does not fit is taken to the next line.

    A word is written as it comes. When its next part crosses the edge, what stands of it is erased, by going
    back over it, and written again on a line of its own. A word longer than a line is left to the terminal.
    """

    def __init__(self, columns: int) -> None:
        """*columns* of the terminal; 0 leaves everything as it is."""
        self._columns = columns
        self._line = ""
        """Of the text, from its beginning: for what opens or closes a fence."""
        self._column = 0
        self._blank = ""
        """Between the last word and the next, which decides whether it becomes the end of a line."""
        self._word = ""
        """What stands of the word that is still coming."""
        self._is_code = False

    def feed(self, text: str) -> str:
        """What to write for *text*."""
        if not self._columns:
            return text
        return "".join(self._written(part) for part in _PARTS.findall(text))

    def _written(self, part: str) -> str:
        if part == "\n":
            self._is_code ^= self._line.lstrip().startswith(FENCE)
            self._line, self._column, self._blank, self._word = "", 0, "", ""
            return part
        self._line += part
        if self._is_code or self._line.lstrip().startswith(FENCE):
            blank, self._blank = self._blank, ""
            return blank + part
        if part.isspace():
            self._blank, self._word = self._blank + part, ""
            return ""
        return self._begun(part) if not self._word else self._continued(part)

    def _begun(self, part: str) -> str:
        blank, self._blank, self._word = self._blank, "", part
        if self._column and not self._fits(cells(blank) + cells(part)):
            self._column = cells(part)
            return f"\n{part}"
        self._column += cells(blank) + cells(part)
        return blank + part

    def _continued(self, part: str) -> str:
        here, more = cells(self._word), cells(part)
        self._word += part
        if self._fits(more) or here == self._column:
            self._column += more
            return part
        self._column = here + more
        return f"\x1b[{here}D\x1b[K\n{self._word}"

    def _fits(self, more: int) -> bool:
        # The last column stays free: a terminal that has filled it is on the next line, or is not.
        return self._column + more < self._columns


def cells(text: str) -> int:
    """Columns that *text* takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
