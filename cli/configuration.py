"""`modelyard config`: what the daemon would read, judged and shown without starting it; and reloading it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final, TypedDict

import click

from cli import terminal
from cli.errors import Status
from cli.options import json_option
from cli.reloading import apply, plan


class ConfigProblem(TypedDict):
    """One thing that is wrong."""

    where: str
    """File or environment variable."""
    line: int | None
    key: str
    """Dotted: `models.qwen.ttl`; empty for the file as a whole."""
    what: str


class ConfigChecked(TypedDict):
    """What `config check --json` prints."""

    valid: bool
    file: str | None
    """null: there is none, and everything is the default."""
    listen: str | None
    """null when it is not valid."""
    models: list[str]
    """Those that are named in it."""
    problems: list[ConfigProblem]


class ConfigShown(TypedDict):
    """What `config show --json` prints."""

    file: str | None
    settings: dict[str, Any]
    """As in the file, complete: durations in seconds, sizes in bytes, `***` for what may be a secret."""
    sources: dict[str, str]
    """Dotted key to `FILE:LINE`, `$VARIABLE` or `default`."""


NO_FILE: Final = "no file, the defaults"

_config = click.option(
    "--config", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The file."
)


@click.group()
def config() -> None:
    """Check and show the configuration, and put a changed one into force."""


config.add_command(plan)
config.add_command(apply)


@config.command()
@_config
@json_option
def check(file: Path | None, as_json: bool) -> int:
    """Read the configuration as the daemon would, and say where it came from.

    Exit status 78 and one line per problem, with file, line and key, when something is wrong.
    """
    from config.errors import ConfigError
    from config.load import find_config, load_settings

    try:
        loaded = load_settings(find_config(file, os.environ, Path.cwd()), os.environ)
    except ConfigError as error:
        if not as_json:
            raise
        problems = [ConfigProblem(where=p.where, line=p.line, key=p.key, what=p.what) for p in error.problems]
        found = ConfigChecked(
            valid=False, file=None if file is None else str(file), listen=None, models=[], problems=problems
        )
        terminal.print_json(found)
        return Status.CONFIG
    settings, where = loaded.settings, None if loaded.path is None else str(loaded.path)
    if as_json:
        terminal.print_json(
            ConfigChecked(
                valid=True,
                file=where,
                listen=", ".join(settings.addresses),
                models=sorted(settings.models),
                problems=[],
            )
        )
    else:
        count = len(settings.models)
        print(f"fine: {where or NO_FILE}; {count} models named, listening on {', '.join(settings.addresses)}")
    return Status.OK


@config.command()
@_config
@json_option
def show(file: Path | None, as_json: bool) -> None:
    """Show every setting as the daemon would have it, and where each value comes from.

    As YAML that can be read again, with the source behind each value: the file's line, the environment
    variable, or `default`. What may be a secret is shown as ***.
    """
    from config.load import find_config, load_settings
    from config.shown import effective, plain, sources, yaml_lines

    loaded = load_settings(find_config(file, os.environ, Path.cwd()), os.environ)
    tree = effective(loaded, os.environ)
    where = None if loaded.path is None else str(loaded.path)
    if as_json:
        terminal.print_json(ConfigShown(file=where, settings=plain(tree), sources=sources(tree)))
        return
    print(terminal.dim(f"# {where or NO_FILE}", sys.stdout))
    for text, comment in yaml_lines(tree):
        print(f"{text}  {terminal.dim(comment, sys.stdout)}" if comment else text)


@config.command()
def schema() -> None:
    """Print the JSON schema, for editors that check and complete YAML."""
    from config.schema_json import schema_text

    print(schema_text(), end="")
