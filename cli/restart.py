"""`modelyard restart`: a new process takes the daemon's place, and nobody who talks to it notices."""

from __future__ import annotations

import click

from cli import terminal
from cli.fleet import daemon_at
from cli.options import json_option, url_option

PATIENCE = 240.0
"""Seconds: the new process reads every checkpoint's description before the old one lets go."""


@click.command()
@json_option
@url_option
def restart(as_json: bool, url: str | None) -> None:
    """Let a new process take over: a new version, or settings that a reload does not change.

    Models stay loaded, no request fails, answers that are being streamed go on to their end. Fails, with the
    daemon as it was, when the new process does not come up.
    """
    with daemon_at(url) as daemon:
        answer = daemon.post("/api/restart", patience=PATIENCE)
    if as_json:
        terminal.print_json(answer)
    else:
        print(f"process {answer['pid']} serves; process {answer['was']} goes when its last answer has ended")
