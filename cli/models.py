"""`modelyard models`: what can be asked for, from the daemon or, without one, from what is found here."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import click
from click.shell_completion import CompletionItem

from cli import terminal
from cli.daemon import Daemon, find_url
from cli.errors import CliError, RefusedError, Status
from cli.inspecting import fact_lines, inspect_command, print_lines
from cli.options import complete_model, json_option, model_argument, url_option
from cli.terminal import Column
from config.units import parse_tokens
from config.vocabulary import Capability

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

NARROW: Final = 100
"""Columns below which the engine is left out and a long id has a line of its own."""

WORDS: Final = {"generate": "chat", "tool_use": "tools", "reasoning": "think", "transcribe": "hear"}
"""Capabilities as the table writes them; the rest as they are called everywhere."""

ORDER: Final = ("generate", "tool_use", "reasoning", "code", "vision", "video", "audio")


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
@click.option("--capability", "wanted", multiple=True, metavar="NAME", help="Only models that can do this.")
@click.option("--min-context", metavar="TOKENS", help="Only models that take so many tokens, such as 32k.")
@json_option
@url_option
@click.pass_context
def models(
    ctx: click.Context, wanted: tuple[str, ...], min_context: str | None, *, as_json: bool, url: str | None
) -> None:
    """Show the models that can be asked for; `models show ID` (or `models ID`) all that is known of one.

    Works without a daemon too: then it shows what a daemon with this configuration would serve.
    """
    if ctx.invoked_subcommand is not None:
        return
    chosen = Filter(frozenset(_capability(word) for word in wanted), _tokens(min_context))
    listing = list_models(url)
    found = [entry for entry in entries(listing) if chosen.lets(entry)]
    if as_json:
        terminal.print_json({**listing, "data": found})
    elif found:
        print_models(found)
    elif entries(listing):
        terminal.note("no model is like that; `modelyard models` lists them all")
    else:
        terminal.note("no models found: put one in the Hugging Face cache, or name one in modelyard.yaml")


@models.command()
@model_argument()
@json_option
@url_option
@click.pass_context
def show(ctx: click.Context, model: str, *, as_json: bool, url: str | None) -> None:
    """Show everything known about MODEL, and who says so where sources differ."""
    before = ctx.parent.params if ctx.parent is not None else {}
    where = url or before.get("url")
    entry = _whole(find(entries(list_models(where, whole=True)), model), where)
    terminal.print_json(entry) if as_json or before.get("as_json") else print_entry(entry)


models.add_command(inspect_command, "inspect")


def _whole(entry: Entry, url: str | None) -> Entry:
    """*entry* with all its facts: asked of the daemon, or built here where none answered."""
    if "facts" in entry:
        return entry
    daemon = Daemon(find_url(url))
    try:
        answer = daemon.get(f"/v1/models/{quote(str(entry['id']), safe='')}")
    except CliError:
        return entry
    finally:
        daemon.close()
    return answer if isinstance(answer, dict) and "id" in answer else entry


# -- filters ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filter:
    """Which models are listed."""

    capabilities: frozenset[str] = frozenset()
    min_context: int = 0

    def lets(self, entry: Entry) -> bool:
        """Whether *entry* is listed: what is not known of a model counts as not there."""
        context = entry.get("context_length")
        return self.capabilities <= set(entry.get("capabilities") or ()) and (
            self.min_context == 0 or (isinstance(context, int) and context >= self.min_context)
        )


def _capability(word: str) -> str:
    known = [capability.value for capability in Capability]
    by_word = {**{short: name for name, short in WORDS.items()}, **{name: name for name in known}}
    name = by_word.get(word.strip().lower().replace("-", "_"))
    if name is None:
        raise click.UsageError(f"{word!r} is no capability; there are: {', '.join(known)}")
    return name


def _tokens(text: str | None) -> int:
    if text is None:
        return 0
    try:
        return parse_tokens(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def list_models(url: str | None, *, whole: bool = False) -> Any:
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

    return local_listing(whole=whole)


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


def print_models(found: Sequence[Entry]) -> None:
    """The table, fitted to the terminal: an id is neither cut off nor broken, so that it can be copied."""
    rows = [row(entry) for entry in found]
    if not sys.stdout.isatty():
        terminal.print_table(COLUMNS, rows)
        return
    width = terminal.console().width
    if width < NARROW:
        print("\n".join(narrow_table(rows, width)))
    else:
        terminal.print_table(COLUMNS[:-1], [cells[:-1] for cells in rows])
    if problems := problem_lines(found, width):
        print("\n".join(("", *problems)))


CAN_WIDTH: Final = 24
"""Of capabilities in a narrow table: what is longer goes on below."""
CAN_WIDTH_BY_STATE: Final = 16
"""The same beside a column of states: `chat tools think` still is one line."""


def narrow_table(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """The lines of a table without engines, and without states where all are the same and none is in the way.

    An id that is too long has a line of its own.
    """
    headings = ("MODEL", "STATE", "CAN", "CONTEXT", "SIZE")
    cells = [headings, *((r[0], r[1], r[3], r[4], r[5]) for r in rows)]
    states = {r[1] for r in rows}
    is_state_shown = len(states) > 1 or any(r[6] for r in rows)
    state = max(map(len, states | {"STATE"})) + terminal.GAP if is_state_shown else 0
    can_width = CAN_WIDTH_BY_STATE if is_state_shown else CAN_WIDTH
    sizes = max(len(cell[4]) for cell in cells)
    room = width - state - can_width - len("CONTEXT") - sizes - 3 * terminal.GAP
    room = max(len("MODEL"), min(room, max(len(cell[0]) for cell in cells)))
    lines: list[str] = []
    for model, said, capabilities, context, size in cells:
        first, *more = textwrap.wrap(capabilities, can_width) or [""]
        fits = len(model) <= room
        lines += [] if fits else [model]
        start = f"{model if fits else '':<{room}}  {said if state else '':<{state}}"
        lines.append(f"{start}{first:<{can_width}}  {context:>7}  {size:>{sizes}}")
        lines += [f"{'':<{room + terminal.GAP + state}}{line}" for line in more]
    return lines


MOST_NAMED: Final = 8
"""Of models in one reason: of more only the number is said, for the table shows which they are."""


def problem_lines(found: Sequence[Entry], width: int) -> list[str]:
    """Why models cannot be served: how many, then each reason once with the models that it is true of."""
    by_reason: dict[str, list[str]] = {}
    for entry in found:
        problem = problem_of(entry)
        if problem:
            model = terminal.text(entry.get("id"))
            reason = problem.removeprefix(f"{model}: ").removeprefix(f"{model} ")
            by_reason.setdefault(reason, []).append(model)
    if not by_reason:
        return []
    lines = [f"{sum(map(len, by_reason.values()))} of {len(found)} models cannot be served here:"]
    for reason, names in by_reason.items():
        who = ", ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} models"
        # A command stays on one line, so that it can be copied.
        whole = re.sub(r"`[^`]*`", lambda command: command[0].replace(" ", "\0"), f"{who}: {reason}")
        wrapped = textwrap.wrap(
            whole, max(width, 40), initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
        )
        lines += [line.replace("\0", " ") for line in wrapped]
    return lines


def row(entry: Entry) -> tuple[str, ...]:
    """A model as a row of the table."""
    context = entry.get("context_length")
    return (
        terminal.text(entry.get("id")),
        terminal.text(entry.get("state")),
        terminal.text(entry.get("engine")),
        can(entry.get("capabilities") or ()),
        tokens(context) if isinstance(context, int) else "-",
        terminal.size(entry.get("size_bytes")),
        problem_of(entry),
    )


def can(capabilities: Sequence[str]) -> str:
    """Capabilities in the table's words, what it is for first."""
    known = [name for name in ORDER if name in capabilities]
    rest = [name for name in capabilities if name not in ORDER]
    return " ".join(WORDS.get(name, name) for name in (*known, *rest)) or "-"


def tokens(number: int) -> str:
    """`2k`, `40k`, `128k`, `1M`: a length of context."""
    for unit, letter in ((1024 * 1024, "M"), (1024, "k")):
        if number >= unit and number % unit == 0:
            return f"{number // unit}{letter}"
    return f"{round(number / 1000)}k" if number >= 10_000 else str(number)


def problem_of(entry: Entry) -> str:
    """Why it cannot be served, in one line; "" when it can."""
    problem = entry.get("problem")
    if isinstance(problem, dict):
        return str(problem.get("message") or problem.get("code") or "")
    return str(problem or "")


def print_entry(entry: Entry) -> None:
    """Everything known about one model, a line per key; who says it stands behind each value."""
    facts = entry.get("facts")
    plain = {
        key: value
        for key, value in entry.items()
        if value not in (None, "", [], {}) and key not in ("object", "sources", "facts")
    }
    if not isinstance(facts, dict):
        sources = entry.get("sources") or {}
        lines = [(key, _shown(key, value), _origin(sources.get(key))) for key, value in plain.items()]
        print_lines(lines)
        return
    about = [(key, _shown(key, value), "") for key, value in plain.items() if key not in facts]
    print_lines([*about, *fact_lines(facts)])


def _shown(key: str, value: object) -> str:
    if key == "size_bytes" and isinstance(value, int):
        return terminal.size(value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return str(value.get("message") or value)
    return f"{value:,}" if isinstance(value, int) and key != "created" else str(value)


def _origin(source: Any) -> str:
    """`config.json; the name says 4b`: who said it, and who said otherwise."""
    if not isinstance(source, dict):
        return ""
    others = [
        f"{other.get('source')} says {_shown('', other.get('value'))}" for other in source.get("others") or ()
    ]
    return "; ".join([str(source.get("source")), *others])
