"""`modelyard config plan` and `apply`: what a changed configuration means for what runs, and doing it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from cli import terminal
from cli.daemon import Daemon
from cli.errors import CliError, RefusedError, Status
from cli.fleet import daemon_at
from cli.options import json_option, url_option
from cli.terminal import Column

Entry = Mapping[str, Any]

COLUMNS: Final = (
    Column("ACTION"),
    Column("MODEL", wide=True),
    Column("STATE"),
    Column("CHANGED", wide=True),
    Column("NOTE", wide=True),
)

PATIENCE: Final = 120.0
"""Seconds for reading the checkpoints of a large fleet; waiting for models comes on top, without an end."""

_NOTES: Final = {
    "restart": "drained, then started anew; put back if it does not become ready",
    "update": "without a restart",
    "remove": "drained and stopped",
}

_file = click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))


@click.command()
@_file
@click.option("--exit-code", is_flag=True, help="End with 3 when something would change.")
@json_option
@url_option
def plan(file: Path | None, exit_code: bool, as_json: bool, url: str | None) -> int:
    """Show what `config apply` would do: keep, update, restart, add or remove each model, and the memory.

    FILE is a draft to plan with; without it, the file that the daemon was started with. Nothing is changed.
    """
    body = None if file is None else _draft(file)
    with daemon_at(url) as daemon:
        found = _asked(daemon, "/api/config/plan", body, patience=PATIENCE)
    if as_json:
        terminal.print_json(found)
    else:
        _print_plan(found)
    return Status.CHANGES if exit_code and found["changes"] else Status.OK


@click.command()
@_file
@click.option("--no-wait", is_flag=True, help="Do not wait for models that are restarted.")
@json_option
@url_option
def apply(file: Path | None, no_wait: bool, as_json: bool, url: str | None) -> int:
    """Put the configuration into force, touching only what has changed, and wait until that is ready.

    The daemon reads the file that it was started with; FILE says which one you mean, and is refused when it
    is another. Fails, naming the cause, when a model keeps its old definition or gets it back. A file that
    cannot be used changes nothing.
    """
    with daemon_at(url) as daemon:
        if file is not None:
            _must_be_the_daemons(daemon, file)
        query = {"wait": "0"} if no_wait else None
        with terminal.status_line("applying the configuration"):
            found = _asked(daemon, "/api/config/apply", query=query, patience=PATIENCE if no_wait else None)
    if as_json:
        terminal.print_json(found)
    else:
        _print_applied(found)
    wrong = [one for one in found["models"] if one["outcome"] in _FAILED]
    for one in wrong:
        terminal.error(f"{one['model']} {_FAILED[one['outcome']]}: {one['cause']}")
    return Status.FAILURE if wrong else Status.OK


_FAILED: Final = {
    "rolled_back": "keeps its old definition",
    "not_started": "has its new definition and does not run",
}


# -- asking ----------------------------------------------------------------------------------------


def _asked(
    daemon: Daemon,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, str] | None = None,
    patience: float | None,
) -> Any:
    try:
        return daemon.post(path, body, query=query, patience=patience)
    except RefusedError as error:
        if error.code == "config_invalid":
            error.status = Status.CONFIG
        raise


def _draft(file: Path) -> Mapping[str, str]:
    """The file as the daemon is told of it. Raises ConfigError for one that could not be used anyway."""
    from config.load import load_settings

    path = file.absolute()
    load_settings(path, os.environ)
    return {"file": str(path), "text": path.read_text(encoding="utf-8-sig")}


def _must_be_the_daemons(daemon: Daemon, file: Path) -> None:
    _draft(file)
    theirs = daemon.get("/api/status")["configuration"]["file"]
    if theirs is None:
        raise CliError(f"the daemon runs without a file: start it with --config {file.absolute()}")
    if Path(theirs).resolve() != file.resolve():
        raise CliError(
            f"the daemon reads {theirs}, not {file}: put the changes there, and `modelyard config apply`"
        )


# -- showing ---------------------------------------------------------------------------------------


def _print_plan(found: Entry) -> None:
    changed = [one for one in found["models"] if one["action"] != "keep" or one["refused"]]
    kept = len(found["models"]) - len(changed)
    if not found["changes"]:
        print(f"nothing to do: {_stay(kept)}")
        return
    if changed:
        terminal.print_table(COLUMNS, [_row(one) for one in changed])
    if kept:
        print(_stay(kept))
    _print_rest(found)


def _stay(count: int) -> str:
    return "1 model stays as it is" if count == 1 else f"{count} models stay as they are"


def _row(one: Entry) -> Sequence[str]:
    note = f"not taken over: {one['refused']}" if one["refused"] else _NOTES.get(one["action"], "")
    if one["action"] == "remove" and one["state"] == "stopped":
        note = ""
    if one["action"] == "update" and one["state"] not in ("starting", "ready"):
        note = "from its next start on"
    return (
        one["action"],
        terminal.text(one["model"]),
        terminal.text(one["state"]),
        terminal.text(", ".join(one["changed"]) or "-"),
        terminal.text(note or "-"),
    )


def _print_applied(found: Entry) -> None:
    if not found["models"]:
        print("every model stays as it is")
    for one in found["models"]:
        keys = f" ({', '.join(one['changed'])})" if one["changed"] else ""
        print(f"{terminal.text(one['model'])}: {one['outcome'].replace('_', ' ')}{keys}")
    _print_rest(found)


def _print_rest(found: Entry) -> None:
    for device in found["devices"]:
        before, after = device["before_bytes"], device["after_bytes"]
        budget = terminal.size(device["budget_bytes"])
        if before != after:
            over = ", more than there is" if after > device["budget_bytes"] else ""
            print(
                f"{device['device']}: {terminal.size(before)} reserved before, {terminal.size(after)} after, "
                f"of {budget}{over}"
            )
        else:
            print(f"{device['device']}: {terminal.size(before)} of {budget} reserved, before and after")
    if found["settings"]:
        print(f"comes into force: {', '.join(found['settings'])}")
    if found["left_for_restart"]:
        print(f"not before `modelyard restart`: {', '.join(found['left_for_restart'])}")
