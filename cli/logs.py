"""`modelyard logs`: what a model's engine has written, and with -f what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import click

from cli import terminal
from cli.daemon import model_path
from cli.errors import RefusedError
from cli.fleet import daemon_at
from cli.options import json_option, model_argument, url_option
from cli.stream import events


class LogLine(TypedDict):
    """What `logs --follow --json` prints for each line of the log, on a line of its own."""

    model: str
    line: str


@click.command()
@model_argument()
@click.option(
    "-n", "--lines", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many lines."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with each new line until Ctrl-C.")
@json_option
@url_option
def logs(model: str, lines: int, follow: bool, as_json: bool, url: str | None) -> None:
    """Show the last lines that MODEL's engine wrote.

    With -f and --json each line is an object of its own.
    """
    path = model_path(model, "logs")
    with daemon_at(url) as daemon:
        if not follow:
            answer = daemon.get(path, tail=lines, format="json")
            terminal.print_json(answer) if as_json else _print(log_lines(answer))
            return
        with daemon.listen(path, tail=lines, follow=1, format="events") as stream:
            for _, found in events(stream):
                for line in log_lines(found):
                    if as_json:
                        terminal.print_json_line(LogLine(model=model, line=line))
                    else:
                        print(line)
                terminal.flush()
    terminal.note("the daemon has ended the log: it is stopping")


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print(line)


def log_lines(answer: Any) -> Sequence[str]:
    """The lines in a logs answer."""
    found = answer.get("lines") if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise RefusedError("the daemon's answer holds no log lines")
    return [str(line) for line in found]
