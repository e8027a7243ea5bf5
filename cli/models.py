"""`modelyard models`: what can be asked for, from the daemon or, without one, from what is found here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from cli import terminal
from cli.daemon import Daemon, find_url
from cli.errors import CliError, RefusedError, Status
from cli.options import complete_model, json_option, model_argument, url_option
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


class Models(click.Group):
    """`models` lists, `models show ID` shows one; a bare id means `show`, as it is typed most."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A word that is no command is a model's name."""
        if args and args[0] not in self.commands:
            return "show", self.commands["show"], args
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Ids as well as commands."""
        ids = [CompletionItem(model) for model in complete_model(ctx, ctx.command.params[0], incomplete)]
        return [*super().shell_complete(ctx, incomplete), *ids]


@click.group(cls=Models, invoke_without_command=True)
@json_option
@url_option
@click.pass_context
def models(ctx: click.Context, as_json: bool, url: str | None) -> None:
    """Show the models that can be asked for; `models show ID` (or `models ID`) all that is known of one.

    Works without a daemon too: then it shows what a daemon with this configuration would serve.
    """
    if ctx.invoked_subcommand is not None:
        return
    listing = list_models(url)
    if as_json:
        terminal.print_json(listing)
    elif entries(listing):
        terminal.print_table(COLUMNS, [row(entry) for entry in entries(listing)])
    else:
        terminal.note("no models found: put one in the Hugging Face cache, or name one in modelyard.yaml")


@models.command()
@model_argument()
@json_option
@url_option
@click.pass_context
def show(ctx: click.Context, model: str, as_json: bool, url: str | None) -> None:
    """Show everything known about MODEL, and who says so where sources differ."""
    before = ctx.parent.params if ctx.parent is not None else {}
    entry = find(entries(list_models(url or before.get("url"))), model)
    terminal.print_json(entry) if as_json or before.get("as_json") else print_entry(entry)


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
