"""`modelyard models inspect`: what is known of a name, a folder, a file or a server, without a daemon."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict

import click

from cli import terminal
from cli.errors import CliError, Status, one_line
from cli.options import json_option

if TYPE_CHECKING:
    from registry.probe import ServedModel

ANSWER_SECONDS: Final = 5.0
"""A server that runs answers these pages at once; one that does not is not waited for."""
MAX_ANSWER_BYTES: Final = 8 * 2**20
"""The largest list of routes has 200 kB."""


class Said(TypedDict):
    """What somebody else says of the same thing."""

    value: Any
    source: str


class FactShown(TypedDict):
    """A fact and who says it."""

    value: Any
    """null: nobody knows."""
    source: str
    rank: str | None
    """`operator`, `engine`, `files`, `name` or `default`: the first is believed most."""
    others: NotRequired[list[Said]]
    """Those of lower rank who say otherwise."""


class Inspected(TypedDict, total=False):
    """What `models inspect --json` prints. Of a server with several models it is `url` and `models` alone."""

    subject: str
    kind: str
    present: bool
    path: str | None
    problem: str | None
    display_name: str
    tags: list[str]
    supported_parameters: list[str]
    engines: dict[str, str | None]
    """Per engine, why it cannot serve it on this machine; null: it can."""
    provider: FactShown
    family: FactShown
    version: FactShown
    base_family: FactShown
    stage: FactShown
    capabilities: FactShown
    parameters: FactShown
    active_parameters: FactShown
    quantization: FactShown
    context_length: FactShown
    size_bytes: FactShown
    kv_bytes_per_token: FactShown
    architecture: FactShown
    chat_template: FactShown
    license: FactShown
    base_model: FactShown
    url: str
    """Of the server that was asked, and below each of its models."""
    models: list[Inspected]


@click.command()
@click.argument("subject")
@json_option
@click.option("--key-env", metavar="NAME", help="Environment variable with the server's API key.")
def inspect_command(subject: str, as_json: bool, key_env: str | None) -> None:
    """Show what is known of SUBJECT and who says so: a hub id, a folder, a .gguf file, or a server's URL.

    Nothing has to be there: of a model that was never downloaded it shows what its name says.
    """
    if subject.startswith(("http://", "https://")) and not _is_hub(subject):
        _print_server(subject, as_json=as_json, key_env=key_env)
        return
    from config.errors import ConfigError
    from config.load import find_config, load_settings
    from registry.families import load_families
    from registry.inspection import inspect, report
    from registry.machine import read_machine

    try:
        entries = load_settings(find_config(None, os.environ, Path.cwd()), os.environ).settings.models
    except ConfigError as error:
        entries = {}
        terminal.note(f"the configuration is not used: {one_line(str(error))}")
    found = inspect(subject, env=os.environ, families=load_families(), entries=entries)
    answer = report(found, read_machine())
    terminal.print_json(answer) if as_json else _print(answer)


def _is_hub(url: str) -> bool:
    host = url.partition("://")[2].partition("/")[0].removeprefix("www.")
    return host in ("huggingface.co", "hf.co", "modelscope.cn")


# -- servers ---------------------------------------------------------------------------------------


def _print_server(url: str, *, as_json: bool, key_env: str | None) -> None:
    from registry.families import load_families
    from registry.inspection import inspect_served, report
    from registry.machine import read_machine

    machine, families = read_machine(), load_families()
    reports = [report(inspect_served(one, families=families), machine) for one in _served(url, key_env)]
    if as_json:
        # One model is answered like a name or a folder, so that programs need one way to read it.
        own = reports[0] if len(reports) == 1 else {}
        terminal.print_json({**own, "url": url, "models": reports})
        return
    for number, answer in enumerate(reports):
        print("" if number else f"{url} serves {len(reports)} model{'s' * (len(reports) != 1)}", end="\n\n")
        _print(answer)


def _served(url: str, key_env: str | None) -> Sequence[ServedModel]:
    import httpx

    from registry.probe import parse_models, parse_routes, with_health, with_routes

    base = url.rstrip("/").removesuffix("/models").removesuffix("/v1")
    key = os.environ.get(key_env) if key_env else None
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(headers=headers, timeout=ANSWER_SECONDS, trust_env=False) as client:
        try:
            listed = _get(client, f"{base}/v1/models")
            served = parse_models(listed)
        except httpx.HTTPError as error:
            what = str(error) or type(error).__name__
            raise CliError(f"{base}/v1/models does not answer: {what}", Status.UNREACHABLE) from error
        except ValueError as error:
            raise CliError(f"{base}: {error}") from error
        routes = parse_routes(_get_or_nothing(client, f"{base}/openapi.json"))
        health = _get_or_nothing(client, f"{base}/health")
    return [with_health(with_routes(one, routes), health) for one in served]


def _get(client: Any, url: str) -> bytes:
    with client.stream("GET", url) as answer:
        answer.raise_for_status()
        body = bytearray()
        for chunk in answer.iter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError(f"an answer of more than {MAX_ANSWER_BYTES // 2**20} MiB")
        return bytes(body)


def _get_or_nothing(client: Any, url: str) -> bytes:
    import httpx

    try:
        return _get(client, url)
    except (httpx.HTTPError, ValueError):
        return b""


# -- for people ------------------------------------------------------------------------------------

_ABOUT: Final = ("kind", "path", "problem")
_SIZES: Final = ("size_bytes", "kv_bytes_per_token")
_COUNTS: Final = ("parameters", "active_parameters")


def _print(answer: Mapping[str, Any]) -> None:
    print(answer["subject"])
    lines = [(key, str(answer[key]), "") for key in _ABOUT if answer.get(key)]
    lines += fact_lines({key: fact for key, fact in answer.items() if _is_fact(fact)})
    lines += [
        (f"on {engine}", "runs here" if why is None else why, "") for engine, why in answer["engines"].items()
    ]
    print_lines(lines)


def print_lines(lines: Sequence[tuple[str, str, str]]) -> None:
    """Keys and values in two columns; what stands behind a value follows it, dimmed."""
    width = max((len(key) for key, _, _ in lines), default=0)
    for key, value, behind in lines:
        tail = terminal.dim(f"  {behind}", sys.stdout) if behind else ""
        print(f"  {key.replace('_', ' ').ljust(width)}  {value}{tail}")


def _is_fact(value: object) -> bool:
    return isinstance(value, dict) and {"value", "source", "rank"} <= set(value)


def fact_lines(facts: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """The facts that somebody knows, then in one line those that nobody does."""
    lines = [fact_line(key, fact) for key, fact in facts.items() if fact["value"] is not None]
    unknown = [key.replace("_", " ") for key, fact in facts.items() if fact["value"] is None]
    return [*lines, ("not known", ", ".join(unknown), "")] if unknown else lines


def fact_line(key: str, fact: Mapping[str, Any]) -> tuple[str, str, str]:
    """A fact as (key, value, who says it and who says otherwise)."""
    others = [
        f"{other['source']} says {fact_text(key, other['value'])}" for other in fact.get("others") or ()
    ]
    return key, fact_text(key, fact["value"]), "; ".join([str(fact["source"]), *others])


def fact_text(key: str, value: object) -> str:
    """A fact's value for people."""
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, int) and key in _SIZES:
        return terminal.size(value)
    if isinstance(value, int) and key in _COUNTS:
        return count(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def count(number: int) -> str:
    """`30.5 B`, `135 M`: a number of parameters."""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:,}"
