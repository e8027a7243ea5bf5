"""Printing: tables and colours for people, plain aligned text for pipes, JSON for programs.

rich is imported only where a terminal is written to: a command in a pipe starts without it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

GAP: Final = 2
"""Blanks between two columns."""

NARROWEST_TEXT: Final = 30
"""Columns that free text needs: in fewer it is a tower of words."""

STYLE_BY_STATE: Mapping[str, str] = {
    "ready": "green",
    "starting": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "backoff": "red",
    "failed": "bold red",
    "down": "red",
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
}
"""Colour of a state where there is colour; the word itself is always printed too."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading and how it is set."""

    name: str
    right: bool = False
    """Numbers are set to the right."""
    wide: bool = False
    """Free text: the column that is folded when the terminal is too narrow."""


class StatusLine(Protocol):
    """A line that says what is going on, replaced in place on a terminal."""

    def say(self, text: str) -> None:
        """Show *text* from now on."""
        ...


def print_json(value: Any) -> None:
    """*value* as indented JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """*value* as JSON on one line of stdout: for answers that go on."""
    print(json.dumps(value, ensure_ascii=False))


def flush() -> None:
    """Write what was printed: a pipe keeps it back otherwise, and what is followed comes late."""
    sys.stdout.flush()


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: coloured and fitted to the terminal's width, or aligned and untouched in a pipe.

    Where the terminal is too narrow for a last column of free text, that text follows below the table.
    """
    if not sys.stdout.isatty():
        print(plain_table(columns, rows))
        return
    screen = console()
    taken = sum(width + GAP for width in _widths(columns[:-1], rows))
    notes: list[tuple[str, str]] = []
    if columns[-1].wide and taken + NARROWEST_TEXT > screen.width:
        notes = [(row[0], row[-1]) for row in rows if row[-1] not in ("", "-")]
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    screen.print(rich_table(columns, rows))
    for name, note_text in notes:
        screen.print(f"\n{note_text if note_text.startswith(name) else f'{name}: {note_text}'}")


def rich_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    """The table for a terminal: states coloured, free text folded, nothing cut off."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        # Folded, never cut off: an id has to be fit to be copied.
        table.add_column(column.name, justify=justify, no_wrap=not column.wide, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLE_BY_STATE.get(cell, "")) for cell in row))
    return table


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max([len(column.name), *(len(row[at]) for row in rows)]) for at, column in enumerate(columns)]


def plain_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """The table as aligned text, two spaces between columns, nothing cut off."""
    lines = [[column.name for column in columns], *rows]
    widths = _widths(columns, rows)
    return "\n".join(
        (" " * GAP)
        .join(
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        .rstrip()
        for line in lines
    )


def console(*, stderr: bool = False) -> Console:
    """A rich console that takes text literally: no markup, no emoji, no guessed highlighting."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def columns(stream: TextIO) -> int:
    """Of the terminal that *stream* is; 0 for anything else."""
    return shutil.get_terminal_size().columns if stream.isatty() else 0


def note(text: str) -> None:
    """One line on stderr: what is going on, for people."""
    print(text, file=sys.stderr, flush=True)


def error(text: str) -> None:
    """One line on stderr that says what failed."""
    print(f"{red('error:', sys.stderr)} {text}", file=sys.stderr, flush=True)


def red(text: str, stream: TextIO) -> str:
    """*text* in red where *stream* is a terminal."""
    return f"\x1b[31m{text}\x1b[0m" if stream.isatty() else text


def dim(text: str, stream: TextIO) -> str:
    """*text* dimmed where *stream* is a terminal."""
    return f"\x1b[2m{text}\x1b[0m" if stream.isatty() else text


class _Silent:
    def say(self, text: str) -> None:
        """Nobody is looking."""


class _Lines:
    """Not a terminal: each change of what goes on is a line of its own, so that a CI log shows it."""

    def __init__(self) -> None:
        self._last = ""

    def say(self, text: str) -> None:
        if text != self._last:
            self._last = text
            note(text)


@contextmanager
def status_line(text: str, *, lines_in_pipe: bool = False) -> Iterator[StatusLine]:
    """A spinner with *text* on stderr while the block runs.

    Where stderr is no terminal nothing is shown, or with *lines_in_pipe* one line per change.
    """
    if not sys.stderr.isatty():
        line: StatusLine = _Lines() if lines_in_pipe else _Silent()
        line.say(text)
        yield line
        return
    with console(stderr=True).status(text, spinner="dots") as spinner:
        yield _Spinner(spinner.update)


@dataclass(frozen=True, slots=True)
class _Spinner:
    update: Any
    """rich's Status.update, whose signature is wider than what we use."""

    def say(self, text: str) -> None:
        self.update(text)


# -- units -----------------------------------------------------------------------------------------


def size(count: float | None) -> str:
    """`3.4 GiB`; a dash when unknown."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float | None) -> str:
    """`45s`, `12m`, `3h20m`, `5d`; a dash when unknown."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 7200:
        return f"{whole // 60}m"
    if whole < 172800:
        hours, minutes = whole // 3600, whole % 3600 // 60
        return f"{hours}h{minutes:02}m" if minutes else f"{hours}h"
    return f"{whole // 86400}d"


def text(value: object) -> str:
    """*value* as a cell; a dash for nothing."""
    return "-" if value is None or value == "" else str(value)
