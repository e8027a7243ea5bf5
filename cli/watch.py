"""`modelyard status --watch`: the status as it changes, in place on a terminal, in a pipe line by line."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cli import terminal
from cli.daemon import Daemon
from cli.errors import CliError
from cli.fleet import PS_COLUMNS, is_active, models_of, note_of, ps_row, summary
from cli.stream import events, merged

if TYPE_CHECKING:
    from rich.console import RenderableType

REDRAWS_PER_SECOND: Final = 2
"""Ages and countdowns move between two changes as well."""


def watch(daemon: Daemon, *, as_json: bool) -> None:
    """Show every change until the daemon ends or Ctrl-C is pressed."""
    with daemon.listen("/api/status/stream") as lines:
        statuses = _statuses(lines)
        if as_json:
            for status in statuses:
                terminal.print_json_line(status)
                terminal.flush()
        elif sys.stdout.isatty():
            _in_place(daemon.url, statuses)
        else:
            _line_by_line(daemon.url, statuses)
    terminal.note("the daemon is stopping")


def _statuses(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The whole status after each change. Raises CliError when the stream makes no sense."""
    status: dict[str, Any] | None = None
    for kind, data in events(lines):
        if kind == "status":
            status = data
        elif kind == "change" and status is not None:
            status = merged(status, data)
        else:
            continue
        models_of(status)
        yield status
    if status is None:
        raise CliError("the status stream ended before there was a status")


# -- a line per change -----------------------------------------------------------------------------


def _line_by_line(url: str, statuses: Iterator[dict[str, Any]]) -> None:
    before: dict[str, tuple[object, ...]] | None = None
    for status in statuses:
        now = {str(one["id"]): _face(one) for one in status["models"]}
        if before is None:
            for line in summary(url, status):
                print(line)
            shown = [one for one in status["models"] if is_active(one)]
        else:
            shown = [one for one in status["models"] if before.get(str(one["id"])) != now[str(one["id"])]]
        for one in shown:
            print(change_line(one, datetime.fromtimestamp(status["at"]).astimezone()))
        terminal.flush()
        before = now


def _face(entry: Mapping[str, Any]) -> tuple[object, ...]:
    """What of a model is worth a line: its state and what it does, but not each step of a countdown."""
    failure = entry.get("last_error") or {}
    return (
        entry.get("state"),
        re.sub(r"[\d.]+", "", str(entry.get("note") or "")),
        bool(entry.get("waiting")),
        entry.get("pinned"),
        failure.get("at"),
    )


def change_line(entry: Mapping[str, Any], at: datetime) -> str:
    """`12:30:05  qwen3-8b  starting  loading qwen3-8b 42%`."""
    words = [at.strftime("%H:%M:%S"), str(entry["id"]), str(entry["state"])]
    if entry.get("waiting"):
        words.append(f"{entry['waiting']} waiting")
    if entry.get("pinned"):
        words.append("pinned")
    if note_of(entry):
        words.append(note_of(entry))
    return "  ".join(words)


# -- in place --------------------------------------------------------------------------------------


def _in_place(url: str, statuses: Iterator[dict[str, Any]]) -> None:
    from rich.live import Live

    screen = _Screen(url)
    with Live(
        get_renderable=screen.drawn,
        console=terminal.console(),
        refresh_per_second=REDRAWS_PER_SECOND,
        screen=True,
    ) as live:
        for status in statuses:
            screen.show(status)
            live.refresh()


class _Screen:
    """The latest status, with ages that go on; drawn by Live's own thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._status: Mapping[str, Any] | None = None
        self._seen: dict[str, tuple[Mapping[str, Any], float]] = {}
        self._began = 0.0

    def show(self, status: Mapping[str, Any]) -> None:
        """*status* from now on."""
        now = time.monotonic()
        with self._lock:
            old = self._seen
            # A model that did not change is the same object still: its ages count from when it came.
            self._seen = {
                one["id"]: old[one["id"]] if one["id"] in old and old[one["id"]][0] is one else (one, now)
                for one in status["models"]
            }
            self._status, self._began = status, now

    def drawn(self) -> RenderableType:
        """The status as it is by now."""
        from rich.console import Group
        from rich.text import Text

        with self._lock:
            status, seen, began = self._status, dict(self._seen), self._began
        if status is None:
            return Text("asking the daemon …")
        now = time.monotonic()
        up = float(status.get("uptime_seconds") or 0.0) + now - began
        aged = {**status, "uptime_seconds": up, "models": [_aged(one, now - at) for one, at in seen.values()]}
        rows = [ps_row(one) for one in aged["models"] if is_active(one)]
        parts: list[RenderableType] = [Text(line) for line in summary(self._url, aged)]
        if rows:
            parts += [Text(), terminal.rich_table(PS_COLUMNS, rows)]
        return Group(*parts, Text("\nCtrl-C leaves", style="dim"))


def _aged(entry: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    idle = entry.get("idle_seconds")
    return {**entry, "idle_seconds": None if idle is None else idle + seconds}
