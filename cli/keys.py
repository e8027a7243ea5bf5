"""`modelyard key`: make, list and revoke the keys that let callers in.

The keys file is edited, not the daemon asked: the first key has to come from somewhere, and whoever may
write the file is who may make keys. A daemon sees the change within a second. A key is printed once and kept
nowhere. It is never an argument of a command, where every account of the machine could read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict

import click

from cli import terminal
from cli.errors import CliError, RefusedError, Status
from cli.options import json_option, url_option
from cli.terminal import Column

if TYPE_CHECKING:
    from config.keys import StoredKey
    from config.schema import Settings

COLUMNS: Final = (
    Column("NAME"),
    Column("SCOPE"),
    Column("MODELS", wide=True),
    Column("AT ONCE", right=True),
    Column("EXPIRES"),
    Column("REQUESTS", right=True),
    Column("TOKENS", right=True),
    Column("BUSY", right=True),
    Column("LAST USED"),
    Column("FROM"),
)


class KeyUsage(TypedDict):
    """What a key has used of one model since the daemon started."""

    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


class KeyEntry(TypedDict):
    """What `key list --json` prints of each key. What is unset is left out, and the key is kept nowhere."""

    name: str
    source: str
    """`file`, or `config` for one that stands in the configuration."""
    scope: str
    models: NotRequired[list[str]]
    """Those that it may use; left out: all."""
    concurrency: NotRequired[int]
    requests_per_minute: NotRequired[int]
    priority: NotRequired[int]
    expires: NotRequired[str]
    created: NotRequired[str]
    in_flight: NotRequired[int]
    """Of here and below: only while a daemon answers."""
    last_used_at: NotRequired[float | None]
    usage: NotRequired[list[KeyUsage]]


class KeyList(TypedDict):
    """What `key list --json` prints."""

    file: str
    keys: list[KeyEntry]


class KeyAdded(TypedDict):
    """What `key add --json` prints: the one time that the key is shown."""

    name: str
    key: str
    file: str | None
    """Where its hash is kept; null with `--print`."""
    hash: str
    scope: str
    models: NotRequired[list[str]]
    concurrency: NotRequired[int]
    requests_per_minute: NotRequired[int]
    priority: int
    expires: NotRequired[str]
    created: str


class KeyRevoked(TypedDict):
    """What `key revoke --json` prints."""

    name: str
    file: str
    last: bool
    """There is no key left: nobody gets in."""


_config = click.option(
    "--config",
    "config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The daemon's.",
)
_file = click.option(
    "--file",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The keys file; else the one that the configuration names.",
)


@click.group()
def key() -> None:
    """Make, list and revoke keys. With the first key, nobody gets in without one."""


@key.command()
@click.argument("name")
@click.option("--scope", type=click.Choice(["inference", "admin"]), default="inference", show_default=True)
@click.option("--model", "models", multiple=True, metavar="ID", help="A model it may use; again for more.")
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="Requests at once.")
@click.option("--requests-per-minute", type=click.IntRange(min=1), metavar="N", help="Their rate.")
@click.option(
    "--priority",
    type=click.IntRange(-100, 100),
    default=0,
    metavar="N",
    help="Served before lower ones that wait for the same model.",
)
@click.option("--expires", metavar="WHEN", help="A date (2027-01-31), or from now: 12h, 30d.")
@click.option("--print", "only_print", is_flag=True, help="Keep nothing: show its entry for modelyard.yaml.")
@json_option
@_file
@_config
def add(
    name: str,
    scope: str,
    models: tuple[str, ...],
    concurrency: int | None,
    requests_per_minute: int | None,
    priority: int,
    expires: str | None,
    only_print: bool,
    as_json: bool,
    file: Path | None,
    config: Path | None,
) -> None:
    """Make the key NAME and print it: once, it is kept as a hash only."""
    from config.keys import entry_of, hash_of, new_key
    from config.schema import check_key_name

    check = _checked(check_key_name, name)
    secret = new_key()
    given: dict[str, object] = {"scope": scope, "models": models or None, "concurrency": concurrency}
    given |= {"requests_per_minute": requests_per_minute, "priority": priority}
    entry = _entry({**given, "hash": hash_of(secret), "expires": _moment(expires)})
    if only_print and as_json:
        terminal.print_json({"name": check, "key": secret, "file": None, **entry_of(entry)})
        return
    if only_print:
        terminal.note(
            "Under `keys:` in modelyard.yaml; the key itself is the first line below, and kept nowhere:"
        )
        print(f"{secret}\n  {check}: {json.dumps(entry_of(entry))}")
        return
    settings = _settings(config)
    path = _path(settings, file)
    if name in settings.keys:
        raise CliError(f"the configuration has a key {name!r} already: choose another name")
    with _editing(path) as keys:
        if name in keys:
            raise CliError(f"there is a key {name!r} already: revoke it first, or choose another name")
        keys[name] = entry
        first = not settings.keys and len(keys) == 1
    if as_json:
        terminal.print_json({"name": name, "key": secret, "file": str(path), **entry_of(entry)})
        return
    print(secret)
    terminal.note(
        f"This is the only time it is shown. Its hash is in {path}; a daemon there knows it within 1 s."
    )
    if first:
        terminal.note("It is the first: from now on, nobody gets in without a key.")


@key.command(name="list")
@json_option
@url_option
@_file
@_config
def list_keys(as_json: bool, url: str | None, file: Path | None, config: Path | None) -> None:
    """Show the keys, and what each has used since the daemon started."""
    from config.keys import entry_of, read_keys

    settings = _settings(config)
    path = _path(settings, file)
    found: dict[str, dict[str, Any]] = {}
    for source, entries in (("file", read_keys(path) or {}), ("config", settings.keys)):
        for name, entry in entries.items():
            shown = {k: v for k, v in entry_of(entry).items() if k != "hash"}
            found[name] = {"name": name, "source": source, **shown}
    running = _running(url)
    for name, view in running.items():
        if name in found:
            found[name] |= {k: view[k] for k in ("in_flight", "last_used_at", "usage") if k in view}
    rows = [found[name] for name in sorted(found)]
    if as_json:
        terminal.print_json({"file": str(path), "keys": rows})
    elif rows:
        terminal.print_table(COLUMNS, [_row(row) for row in rows])
    else:
        terminal.note(f"no keys in {path} nor in the configuration: everybody who reaches the port gets in")
    strange = sorted(found.keys() ^ running.keys()) if running else []
    if strange:
        terminal.note(f"the daemon's keys and these differ ({', '.join(strange[:8])}): does it read {path}?")


@key.command()
@click.argument("name")
@json_option
@_file
@_config
def revoke(name: str, as_json: bool, file: Path | None, config: Path | None) -> None:
    """Take the key NAME back: from now on it is refused. Answers under way go on."""
    settings = _settings(config)
    path = _path(settings, file)
    if name in settings.keys:
        raise CliError(f"the key {name!r} is in the configuration: remove it there, and reload the daemon")
    with _editing(path) as keys:
        if keys.pop(name, None) is None:
            known = ", ".join(sorted(keys)[:8]) or "none"
            raise CliError(f"there is no key {name!r} in {path}; known: {known}")
        last = not keys and not settings.keys
    if as_json:
        terminal.print_json(KeyRevoked(name=name, file=str(path), last=last))
        return
    terminal.note(f"{name} is revoked; a daemon that reads {path} refuses it within 1 s")
    if last:
        terminal.note(
            f"It was the last: nobody gets in now. `modelyard key add` makes another; to let everybody in, "
            f"remove {path} and reload the daemon."
        )


# -- inside ----------------------------------------------------------------------------------------


def _settings(config: Path | None) -> Settings:
    from config.load import find_config, load_settings

    return load_settings(find_config(config, os.environ, Path.cwd()), os.environ).settings


def _path(settings: Settings, file: Path | None) -> Path:
    from config.keys import keys_file

    return file.absolute() if file is not None else keys_file(settings, os.environ)


@contextmanager
def _editing(path: Path) -> Iterator[dict[str, StoredKey]]:
    from config.keys import editing

    try:
        with editing(path) as keys:
            yield keys
    except OSError as error:
        hint = "run it as the account that runs the daemon, or as root"
        raise CliError(f"{path} cannot be written: {error.strerror or error}; {hint}") from None


def _checked(check: Any, value: str) -> str:
    try:
        return str(check(value))
    except ValueError as error:
        raise CliError(str(error), Status.USAGE) from None


def _entry(values: Mapping[str, Any]) -> StoredKey:
    import time

    from pydantic import ValidationError

    from config.keys import StoredKey

    try:
        return StoredKey.model_validate({**values, "created": time.time()})  # noqa: TID251  shown to people
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        raise CliError(str(problem.get("ctx", {}).get("error", problem["msg"])), Status.USAGE) from None


def _moment(text: str | None) -> float | None:
    """Unix seconds for a date, or for a time from now. Raises CliError."""
    import time

    from config.units import parse_duration, parse_moment

    if text is None:
        return None
    try:
        return time.time() + parse_duration(text)  # noqa: TID251  an expiry is a moment on the wall clock
    except ValueError:
        return float(_checked_moment(parse_moment, text))


def _checked_moment(parse: Any, text: str) -> float:
    try:
        return float(parse(text))
    except ValueError as error:
        raise CliError(f"--expires {text!r}: {error}, or 30d", Status.USAGE) from None


def _running(url: str | None) -> dict[str, Mapping[str, Any]]:
    """What the daemon says of its keys, by name; nothing when it does not answer, or not us."""
    from cli.daemon import Daemon, find_url

    daemon = Daemon(find_url(url))
    try:
        answer = daemon.get("/api/keys")
    except RefusedError as refused:
        terminal.note(f"what they have used is not known: {refused}")
        return {}
    except CliError:
        return {}
    finally:
        daemon.close()
    listed = answer.get("keys", []) if isinstance(answer, dict) else []
    return {str(view["name"]): view for view in listed}


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    from config.units import write_moment

    usage = row.get("usage")
    tokens = None if usage is None else sum(one["prompt_tokens"] + one["completion_tokens"] for one in usage)
    used = row.get("last_used_at")
    return (
        str(row["name"]),
        str(row["scope"]),
        ", ".join(row["models"]) if "models" in row else "all",
        terminal.text(row.get("concurrency")),
        terminal.text(row.get("expires")),
        terminal.text(None if usage is None else sum(one["requests"] for one in usage)),
        terminal.text(tokens),
        terminal.text(row.get("in_flight")),
        terminal.text(None if used is None else write_moment(used)),
        str(row["source"]),
    )
