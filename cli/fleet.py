"""`ps`, `status`, `load`, `unload`, `pin`, `unpin`: what runs, and telling the daemon what should."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click

from cli import terminal
from cli.daemon import Daemon, find_url, model_path
from cli.errors import CliError
from cli.options import json_option, model_argument, url_option
from cli.terminal import Column

Entry = Mapping[str, Any]
"""One model in a status answer; `router.control.status.ModelStatus` says what is in it."""

AT_REST: Final = frozenset({"stopped", "unusable", "endpoint"})
WATCH_SECONDS: Final = 1.0
"""How often `load` asks what the daemon is doing, for the line it shows."""

PS_COLUMNS: Final = (
    Column("MODEL", wide=True),
    Column("STATE"),
    Column("ENGINE"),
    Column("PID", right=True),
    Column("PORT", right=True),
    Column("MEMORY", right=True),
    Column("BUSY", right=True),
    Column("WAIT", right=True),
    Column("IDLE", right=True),
    Column("TTL", right=True),
    Column("NOTE", wide=True),
)


@contextmanager
def daemon_at(url: str | None) -> Iterator[Daemon]:
    """The daemon that --url, the environment or the configuration names, closed at the end."""
    daemon = Daemon(find_url(url))
    try:
        yield daemon
    finally:
        daemon.close()


@click.command()
@json_option
@click.option("-a", "--all", "everything", is_flag=True, help="Stopped models too.")
@url_option
def ps(as_json: bool, everything: bool, url: str | None) -> None:
    """Show what runs and what is being started: process, memory, requests."""
    with daemon_at(url) as daemon:
        found = models_of(daemon.get("/api/status"))
    shown = [one for one in found if everything or is_active(one)]
    if as_json:
        terminal.print_json(shown)
    elif shown:
        terminal.print_table(PS_COLUMNS, [ps_row(one) for one in shown])
    else:
        terminal.note("nothing runs; a model starts with the first request for it, or with `modelyard load`")


def models_of(status: Any) -> Sequence[Entry]:
    """The models in a status answer. Raises CliError when it is none."""
    found = status.get("models") if isinstance(status, dict) else None
    if not isinstance(found, list):
        raise CliError("the status holds no models: is the server another version of modelyard?")
    return found


def is_active(entry: Entry) -> bool:
    """Runs, is being started or stopped, is waited for, or is out of order."""
    return entry.get("state") not in AT_REST or bool(entry.get("waiting"))


def ps_row(entry: Entry) -> tuple[str, ...]:
    """A model as a row of `ps`."""
    memory = entry.get("memory") or {}
    measured, reserved = memory.get("measured_bytes"), memory.get("reserved_bytes")
    return (
        terminal.text(entry.get("id")),
        terminal.text(entry.get("state")),
        terminal.text(entry.get("engine")),
        terminal.text(entry.get("pid")),
        terminal.text(entry.get("port")),
        # What is reserved and not yet measured is an estimate, and says so.
        terminal.size(measured) if measured else f"~{terminal.size(reserved)}" if reserved else "-",
        terminal.text(entry.get("in_flight", 0)),
        terminal.text(entry.get("waiting", 0)),
        terminal.duration(entry.get("idle_seconds")),
        ttl(entry),
        note_of(entry),
    )


def ttl(entry: Entry) -> str:
    """When it is stopped for idleness, in words."""
    if entry.get("pinned"):
        return "pinned"
    kept = entry.get("keep_alive_seconds")
    if kept is not None:
        return "never" if kept < 0 else terminal.duration(kept)
    return terminal.duration(entry["ttl_seconds"]) if entry.get("ttl_seconds") else "never"


def note_of(entry: Entry) -> str:
    """What it does or waits for, or why it failed."""
    if entry.get("note"):
        return str(entry["note"])
    failure = entry.get("last_error")
    if failure and entry.get("state") in ("backoff", "failed"):
        return str(failure.get("cause", ""))
    return ""


@click.command()
@click.option("-w", "--watch", "watched", is_flag=True, help="Go on with every change until Ctrl-C.")
@json_option
@url_option
def status(watched: bool, as_json: bool, url: str | None) -> None:
    """Show the daemon, its memory and its models; --json is everything it knows.

    With --watch: in place on a terminal, a line per change in a pipe, an object per line with --json.
    """
    with daemon_at(url) as daemon:
        if watched:
            from cli.watch import watch

            watch(daemon, as_json=as_json)
            return
        answer = daemon.get("/api/status")
        if as_json:
            terminal.print_json(answer)
            return
        print_summary(daemon.url, answer)


def print_summary(url: str, answer: Mapping[str, Any]) -> None:
    """A status for people: who it is, memory per device, a word on every active model."""
    for line in summary(url, answer):
        print(line)
    active = [one for one in models_of(answer) if is_active(one)]
    if active:
        print()
        terminal.print_table(PS_COLUMNS, [ps_row(one) for one in active])


def summary(url: str, answer: Mapping[str, Any]) -> list[str]:
    """The lines above the table of models."""
    known = models_of(answer)
    facts = [f"modelyard {answer.get('version', '')}".strip(), f"at {url}"]
    if answer.get("pid"):
        facts.append(f"pid {answer['pid']}")
    if answer.get("uptime_seconds") is not None:
        facts.append(f"up {terminal.duration(answer['uptime_seconds'])}")
    lines = [", ".join(facts)]
    lines += [
        f"{device.get('id')}: {terminal.size(device.get('reserved_bytes'))} of "
        f"{terminal.size(device.get('budget_bytes'))} reserved, "
        f"{terminal.size(device.get('free_bytes'))} free"
        for device in answer.get("devices") or ()
    ]
    if answer.get("not_ready_because"):
        lines.append(f"not ready: {answer['not_ready_because']}")
    lines += configuration(answer.get("configuration") or {})
    active = sum(is_active(one) for one in known)
    flying, waiting = (sum(int(one.get(key) or 0) for one in known) for key in ("in_flight", "waiting"))
    return [*lines, f"{len(known)} models, {active} active, {flying} requests in flight, {waiting} waiting"]


def configuration(state: Mapping[str, Any]) -> list[str]:
    """What is to be said of the configuration: nothing, when all of it is in force."""
    lines = [f"configuration not taken over: {line}" for line in str(state.get("error") or "").splitlines()]
    lines += [
        f"{one['model']} keeps its old definition: {one['cause']}" for one in state.get("rolled_back") or ()
    ]
    left = state.get("left_for_restart")
    return [*lines, f"not before `modelyard restart`: {', '.join(left)}"] if left else lines


@click.command()
@model_argument()
@json_option
@url_option
def load(model: str, as_json: bool, url: str | None) -> None:
    """Start MODEL and wait until it answers. Interrupting the wait does not stop the start.

    A model that crashed too often, or is in its pause after a crash, is tried at once.
    """
    with daemon_at(url) as daemon, _watched(daemon, model):
        answer = daemon.post(model_path(model, "load"), query={"retry": "1"}, patience=None)
    _report(answer, model, as_json=as_json)


@click.command()
@model_argument()
@click.option("--force", is_flag=True, help="Cut the requests in flight instead of waiting for them.")
@json_option
@url_option
def unload(model: str, force: bool, as_json: bool, url: str | None) -> None:
    """Stop MODEL and wait until its processes are gone."""
    query = {"force": "1"} if force else None
    with daemon_at(url) as daemon, terminal.status_line(f"stopping {model}"):
        answer = daemon.post(model_path(model, "unload"), query=query, patience=None)
    _report(answer, model, as_json=as_json)


@click.command()
@model_argument()
@json_option
@url_option
def pin(model: str, as_json: bool, url: str | None) -> None:
    """Keep MODEL in memory: it is not stopped for idleness or for another, until `unpin`.

    It is not started by this. A pin ends with the daemon; `pin: true` in the configuration stays.
    """
    _set_pin(model, "pin", as_json=as_json, url=url)


@click.command()
@model_argument()
@json_option
@url_option
def unpin(model: str, as_json: bool, url: str | None) -> None:
    """Let MODEL be stopped again when it idles or when another needs its memory."""
    _set_pin(model, "unpin", as_json=as_json, url=url)


def _set_pin(model: str, verb: str, *, as_json: bool, url: str | None) -> None:
    with daemon_at(url) as daemon:
        answer = daemon.post(model_path(model, verb))
    _report(answer, model, as_json=as_json)


@contextmanager
def _watched(daemon: Daemon, model: str) -> Iterator[None]:
    """A line that says what the daemon is doing for *model* while the block waits for it."""
    over = threading.Event()
    with terminal.status_line(f"loading {model}") as line:

        def watch() -> None:
            eyes = Daemon(daemon.url)
            try:
                while not over.wait(WATCH_SECONDS):
                    for one in models_of(eyes.get("/api/status")):
                        if model in (one.get("id"), *one.get("aliases", ())) and one.get("note"):
                            line.say(str(one["note"]))
            except CliError:
                return  # the block itself meets the same trouble and reports it
            finally:
                eyes.close()

        thread = threading.Thread(target=watch, name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=WATCH_SECONDS)


def _report(answer: Any, model: str, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(answer)
        return
    found = answer if isinstance(answer, dict) else {}
    words = [f"{found.get('id') or model}: {found.get('state') or 'done'}"]
    if found.get("pid"):
        words.append(f"pid {found['pid']}, port {found.get('port')}")
    if found.get("pinned"):
        words.append("pinned")
    print(", ".join(words))
