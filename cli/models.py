"""`modelyard models`: what can be asked for, from the daemon or, without one, from what is found here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from cli import terminal
from cli.daemon import Daemon, find_url
from cli.errors import CliError, RefusedError, Status
from cli.options import complete_model, json_option, url_option
from cli.terminal import Column

Entry = Mapping[str, Any]

COLUMNS: Final = (
    Column("MODEL", wide=True),
    Column("STATE"),
    Column("ENGINE"),
    Column("CAN", wide=True),
    Column("CONTEXT", right=True),
    Column("SIZE", right=True),
    Column("PROBLEM", wide=True),
)


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@json_option
@url_option
def models(model: str | None, as_json: bool, url: str | None) -> None:
    """Show the models that can be asked for, or everything known about MODEL.

    Works without a daemon too: then it shows what a daemon with this configuration would serve.
    """
    listing = list_models(url)
    if model is not None:
        entry = find(entries(listing), model)
        terminal.print_json(entry) if as_json else print_entry(entry)
    elif as_json:
        terminal.print_json(listing)
    elif entries(listing):
        terminal.print_table(COLUMNS, [row(entry) for entry in entries(listing)])
    else:
        terminal.note("no models found: put one in the Hugging Face cache, or name one in modelyard.yaml")


def list_models(url: str | None) -> Any:
    """The answer to GET /v1/models; without a daemon the same shape, built here, with a word on stderr."""
    daemon = Daemon(find_url(url))
    try:
        return daemon.get("/v1/models")
    except CliError as problem:
        if problem.status is not Status.UNREACHABLE or url is not None:
            raise
    finally:
        daemon.close()
    terminal.note(f"no daemon answers at {daemon.url}: this is what one would serve here")
    from cli.catalog import local_listing

    return local_listing()


def entries(listing: Any) -> Sequence[Entry]:
    """The models in a listing. Raises CliError when it is none."""
    data = listing.get("data") if isinstance(listing, dict) else None
    if not isinstance(data, list):
        raise CliError("the answer to GET /v1/models holds no list of models")
    return data


def choosable(listing: Any) -> list[str]:
    """Ids of the models that can be talked to here."""
    return [
        str(entry["id"])
        for entry in entries(listing)
        if not entry.get("problem") and "generate" in (entry.get("capabilities") or ["generate"])
    ]


def find(known: Sequence[Entry], model: str) -> Entry:
    """The entry with that id or alias. Raises RefusedError with what is near."""
    for entry in known:
        if model == entry.get("id") or model in (entry.get("aliases") or ()):
            return entry
    near = [str(entry["id"]) for entry in known if model.lower() in str(entry.get("id")).lower()]
    hint = f"; near: {', '.join(near[:5])}" if near else ""
    raise RefusedError(f"no model is called {model!r}{hint}", code="model_not_found")


def row(entry: Entry) -> tuple[str, ...]:
    """A model as a row of the table."""
    context = entry.get("context_length")
    return (
        terminal.text(entry.get("id")),
        terminal.text(entry.get("state")),
        terminal.text(entry.get("engine")),
        " ".join(entry.get("capabilities") or ()) or "-",
        f"{context:,}" if isinstance(context, int) else "-",
        terminal.size(entry.get("size_bytes")),
        problem_of(entry),
    )


def problem_of(entry: Entry) -> str:
    """Why it cannot be served, in one line; "" when it can."""
    problem = entry.get("problem")
    if isinstance(problem, dict):
        return str(problem.get("message") or problem.get("code") or "")
    return str(problem or "")


def print_entry(entry: Entry) -> None:
    """Everything known about one model, a line per key; where a value comes from stands behind it."""
    width = max(len(key) for key in entry)
    sources = entry.get("sources") or {}
    for key, value in entry.items():
        if value not in (None, "", [], {}) and key not in ("object", "sources"):
            print(f"{key.ljust(width)}  {_shown(key, value)}{_origin(sources.get(key))}")


def _shown(key: str, value: object) -> str:
    if key == "size_bytes" and isinstance(value, int):
        return terminal.size(value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return str(value.get("message") or value)
    return f"{value:,}" if isinstance(value, int) and key != "created" else str(value)


def _origin(source: Any) -> str:
    """`  (config.json; the name says 4b)`: who said it, and who said otherwise."""
    if not isinstance(source, dict):
        return ""
    others = [
        f"{other.get('source')} says {_shown('', other.get('value'))}" for other in source.get("others") or ()
    ]
    return f"  ({'; '.join([str(source.get('source')), *others])})"
