"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from cli.errors import CliError

Command = TypeVar("Command", bound=Callable[..., Any])

COMPLETION_SECONDS: Final = 0.5
"""A person has pressed Tab: an answer later than this is none."""

url_option: Callable[[Command], Command] = click.option(
    "--url",
    metavar="URL",
    help="The daemon's address; else $MODELYARD_URL, else where the configuration says.",
)
json_option: Callable[[Command], Command] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for programs."
)


def complete_model(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the running daemon's models for the shell's completion; none when it does not answer at once."""
    import httpx

    from cli.daemon import find_url, key_header

    try:
        url = find_url(ctx.params.get("url"))
        answer = httpx.get(
            f"{url}/v1/models", headers=key_header(), timeout=COMPLETION_SECONDS, trust_env=False
        ).json()
        ids = [str(entry["id"]) for entry in answer["data"]]
    except (CliError, httpx.HTTPError, ValueError, KeyError, TypeError):
        return []
    return [model for model in ids if model.startswith(incomplete)]


def model_argument(*, required: bool = True) -> Callable[[Command], Command]:
    """The MODEL argument, completed from the running daemon."""
    return click.argument("model", required=required, shell_complete=complete_model)
