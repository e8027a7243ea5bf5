"""`modelyard config`: what the daemon would read, judged without starting it."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.group()
def config() -> None:
    """Check the configuration."""


@config.command()
@click.option(
    "--config", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The file."
)
def check(file: Path | None) -> None:
    """Read the configuration as the daemon would, and say where it came from.

    Exit status 78 and one line per problem, with file, line and key, when something is wrong.
    """
    from config.load import find_config, load_settings

    loaded = load_settings(find_config(file, os.environ, Path.cwd()), os.environ)
    where = "no file, the defaults" if loaded.path is None else str(loaded.path)
    count = len(loaded.settings.models)
    print(f"fine: {where}; {count} models named, listening on {loaded.settings.listen}")


@config.command()
def schema() -> None:
    """Print the JSON schema, for editors that check and complete YAML."""
    from config.schema_json import schema_text

    print(schema_text(), end="")
