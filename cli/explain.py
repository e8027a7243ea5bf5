"""`modelyard explain`: why a request waited."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import click

from cli import terminal
from cli.errors import RefusedError
from cli.fleet import daemon_at
from cli.options import json_option, url_option


@click.command()
@click.argument("request")
@json_option
@url_option
def explain(request: str, as_json: bool, url: str | None) -> None:
    """Say why REQUEST waited: what it needed, who was in the way, what was stopped for it.

    REQUEST is the X-Request-Id of its answer; the access log and error messages have it too.
    """
    with daemon_at(url) as daemon:
        answer = daemon.get(f"/api/explain/{quote(request, safe='')}")
    if as_json:
        terminal.print_json(answer)
        return
    for line in told(answer):
        print(line)


_ENDS: Mapping[str, str] = {
    "waiting": "waits since then, for {seconds:.1f} s",
    "served": "waited {seconds:.1f} s and was served",
    "refused": "waited {seconds:.1f} s and was refused",
    "gone": "waited {seconds:.1f} s until its client left",
}


def told(answer: Any) -> list[str]:
    """The answer as lines for a person."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("steps"), list):
        raise RefusedError("the daemon's answer explains nothing")
    end = _ENDS.get(str(answer["outcome"]), "{seconds:.1f} s").format(seconds=float(answer["waited_seconds"]))
    lines = [f"{answer['request']} asked for {answer['model']} at {_clock(answer['asked'])}; it {end}."]
    return lines + [f"  {_clock(step['at'])}  {step['text']}" for step in answer["steps"]]


def _clock(at: Any) -> str:
    return dt.datetime.fromtimestamp(float(at), tz=dt.UTC).astimezone().strftime("%H:%M:%S")
