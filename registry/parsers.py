"""Which parsers a model is started with: `parsers.yaml`, read once and applied; the rest is pure.

The operator's word first, then the chat template, then the name; only names that the installed engine offers;
for a model nobody knows, none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from config.vocabulary import EngineName
from registry.capability import Capability
from registry.chat_template import FORMATS
from registry.engine import Installation
from registry.model import Model
from registry.name_grammar import take_apart

FILE: Final = Path(__file__).with_name("parsers.yaml")
FILTERS: Final = ("tags", "tool_code", "json", "harmony")
_ENGINES: Final = (EngineName.VLLM.value, EngineName.VLLM_MLX.value)
_KEYS: Final = {"match", "tools", "reasoning", "filter"}

CallFormat = Literal["tags", "tool_code", "json", "harmony"]


class ParsersError(Exception):
    """The data is wrong; the message names the row."""


@dataclass(frozen=True, slots=True)
class Row:
    """Parsers by engine, best first, and the format that a filter of ours reads."""

    tools: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reasoning: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    filter: CallFormat | None = None


_NONE: Final = Row()


@dataclass(frozen=True, slots=True)
class ParserTable:
    """The whole file."""

    formats: Mapping[str, Row]
    """By the format that a chat template shows."""
    families: tuple[tuple[tuple[str, ...], Row], ...]
    """Pieces of a name to a row, the longest first."""

    def by_name(self, name: str) -> Row:
        """The row of the pattern that begins first in *name*, the longest of those; else an empty one."""
        pieces = take_apart(name).pieces
        for start in range(len(pieces)):
            for pattern, row in self.families:
                if pieces[start : start + len(pattern)] == pattern:
                    return row
        return _NONE


@lru_cache(maxsize=1)
def parser_table() -> ParserTable:
    """The table in `parsers.yaml`. Raises ParsersError."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return build_table(yaml.load(FILE.read_text(encoding="utf-8"), Loader=loader))  # noqa: S506  both are safe


def build_table(data: Any) -> ParserTable:
    """The table in parsed YAML. Raises ParsersError for anything that is not as described in the file."""
    if not isinstance(data, dict) or set(data) != {"formats", "families"}:
        raise ParsersError("expected formats and families")
    unknown = set(data["formats"]) - set(FORMATS)
    if unknown:
        raise ParsersError(f"formats: nobody recognises {', '.join(sorted(unknown))}")
    families: dict[tuple[str, ...], Row] = {}
    for row in data["families"]:
        made = _row(row, str(row.get("match")), _ENGINES)
        for pattern in row["match"]:
            pieces = tuple(str(pattern).split())
            if not pieces or pieces in families:
                raise ParsersError(f"{pattern!r} is empty or given twice")
            families[pieces] = made
    return ParserTable(
        formats={
            name: _row(row, name, (*_ENGINES, EngineName.MLX_LM.value))
            for name, row in data["formats"].items()
        },
        families=tuple(sorted(families.items(), key=lambda item: len(item[0]), reverse=True)),
    )


def _row(row: Mapping[str, Any], name: str, engines: tuple[str, ...]) -> Row:
    if set(row) - _KEYS:
        raise ParsersError(f"{name}: unknown key {', '.join(sorted(set(row) - _KEYS))}")
    if row.get("filter") not in (None, *FILTERS):
        raise ParsersError(f"{name}: filter is one of {', '.join(FILTERS)}")
    tools = _names(row.get("tools"), name, engines)
    return Row(tools, _names(row.get("reasoning"), name, _ENGINES), row.get("filter"))


def _names(
    value: Mapping[str, Any] | None, name: str, engines: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    found = {}
    for engine, parsers in (value or {}).items():
        if engine not in engines:
            raise ParsersError(
                f"{name}: {engine} takes no parser here; engines that do: {', '.join(engines)}"
            )
        found[str(engine)] = (parsers,) if isinstance(parsers, str) else tuple(parsers)
    return found


# -- a model's parsers -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parsers:
    """What a model is started with."""

    tools: str | None = None
    reasoning: str | None = None
    filter: CallFormat | None = None
    """The format that the front turns into tool calls, since the engine does not."""


def choose_parsers(model: Model, installation: Installation, table: ParserTable | None = None) -> Parsers:
    """The parsers of *model* on the engine of *installation*."""
    table = table or parser_table()
    engine = installation.engine
    named = _by_names(model, table)
    format_row = table.formats.get(_shown_format(model) or "", named)
    offered = installation.parsers
    tools = reasoning = None
    if Capability.TOOL_USE in model.capabilities:
        tools = _first(format_row.tools.get(engine, ()), offered.tools)
        if tools is None and format_row is _NONE and _files_show_tools(model):
            # vllm-mlx has one that finds the format in the answer itself.
            tools = _first(("auto",), offered.tools)
    if Capability.REASONING in model.capabilities:
        reasoning = _first(named.reasoning.get(engine, ()), offered.reasoning)
    options = model.options
    if options is not None and options.tool_parser is not None:
        tools = None if options.tool_parser == "none" else options.tool_parser
    if options is not None and options.reasoning_parser is not None:
        reasoning = None if options.reasoning_parser == "none" else options.reasoning_parser
    return Parsers(tools, reasoning, _filter(model, engine, tools, format_row))


def _filter(model: Model, engine: EngineName, tools: str | None, row: Row) -> CallFormat | None:
    said = "auto" if model.options is None else model.options.tool_filter
    if said != "auto":
        return None if said == "off" else said
    if engine in (EngineName.COMMAND, EngineName.ENDPOINT) or Capability.GENERATE not in model.capabilities:
        return None  # what such a server does by itself nobody knows: the operator says
    read_by_itself = engine is EngineName.MLX_LM and engine in row.tools
    return None if tools is not None or read_by_itself else row.filter


def _by_names(model: Model, table: ParserTable) -> Row:
    """The row of its source's name, else of its id's: an operator's own name says little."""
    by_source = table.by_name(model.source)
    return by_source if by_source is not _NONE else table.by_name(model.id)


def _shown_format(model: Model) -> str | None:
    """How the chat template writes tool calls, where it shows that."""
    words = (model.checkpoint.template if model.checkpoint is not None else None) or ()
    return next((word.removeprefix("tools:") for word in words if word.startswith("tools:")), None)


def _files_show_tools(model: Model) -> bool:
    return model.checkpoint is not None and Capability.TOOL_USE in model.checkpoint.yes


def _first(names: Iterable[str], offered: frozenset[str]) -> str | None:
    return next((name for name in names if name in offered), None)


def parser_args(model: Model, installation: Installation) -> tuple[str, ...]:
    """Arguments that switch the parsers on; what the operator gave in `args` is left alone.

    Both engines refuse the switch for tools without a parser, and a parser does nothing without the switch.
    """
    chosen = choose_parsers(model, installation)
    own = model.options.args if model.options is not None else ()
    made: list[str] = []
    if _is_given(own, "--tool-call-parser"):
        made += ["--enable-auto-tool-choice"]
    elif chosen.tools is not None:
        made += ["--enable-auto-tool-choice", "--tool-call-parser", chosen.tools]
    if chosen.reasoning is not None and not _is_given(own, "--reasoning-parser"):
        made += ["--reasoning-parser", chosen.reasoning]
    return tuple(made)


def _is_given(args: Iterable[str], flag: str) -> bool:
    return any(word.partition("=")[0] == flag for word in args)
