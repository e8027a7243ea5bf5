"""`modelyard version`: of this command, and of the daemon if one answers."""

from __future__ import annotations

import platform
from typing import TypedDict

import click

from cli import terminal
from cli.daemon import Daemon, find_url
from cli.errors import CliError, Status
from cli.options import json_option, url_option


class DaemonVersion(TypedDict):
    """The daemon that answers."""

    version: str
    url: str
    pid: int


class Versions(TypedDict):
    """What `version --json` prints."""

    version: str
    """Of this command."""
    python: str
    platform: str
    daemon: DaemonVersion | None
    """null when none answers."""


@click.command()
@json_option
@url_option
def version(as_json: bool, url: str | None) -> None:
    """Show the version of this command, and of the daemon if one answers.

    They differ after an upgrade until the daemon is restarted. An unreachable daemon is no failure here.
    """
    from modelyard import __version__

    found = Versions(
        version=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        daemon=_daemon(url),
    )
    if as_json:
        terminal.print_json(found)
        return
    print(f"modelyard {found['version']} (Python {found['python']}, {found['platform']})")
    daemon = found["daemon"]
    if daemon is None:
        terminal.note("no daemon answers")
    else:
        print(f"daemon    {daemon['version']} at {daemon['url']}, pid {daemon['pid']}")
        if daemon["version"] != found["version"]:
            terminal.note("they differ: restart the daemon to run this version")


def _daemon(url: str | None) -> DaemonVersion | None:
    daemon = Daemon(find_url(url))
    try:
        status = daemon.get("/api/status")
        return DaemonVersion(version=str(status["version"]), url=daemon.url, pid=int(status["pid"]))
    except CliError as problem:
        if problem.status is not Status.UNREACHABLE:
            raise
        return None
    finally:
        daemon.close()
