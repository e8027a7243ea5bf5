"""`modelyard generate`: one prompt, one answer; for scripts and for a quick question."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypedDict

import click

from cli import terminal
from cli.answer import parts
from cli.daemon import Daemon
from cli.errors import CliError, Status
from cli.fleet import daemon_at
from cli.options import json_option, model_argument, url_option
from cli.pictures import content_of, read_picture, require_sight
from cli.printer import AnswerPrinter


class Generated(TypedDict):
    """What `generate --json` prints."""

    model: str
    text: str
    reasoning: str
    """What the model thought before it answered, where the engine tells it apart; else empty."""
    finish_reason: str
    """`stop`: it was done; `length`: it ran into `--max-tokens` or the end of its context."""
    usage: dict[str, Any] | None
    """Tokens, as the engine counted them."""


@click.command()
@model_argument()
@click.argument("prompt", required=False)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A picture to go with it; may be repeated.",
)
@click.option("--system", default="", metavar="TEXT", help="System text.")
@click.option("--raw", is_flag=True, help="The prompt as it is, without the model's chat template.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Longest answer.")
@click.option("--temperature", type=click.FloatRange(min=0), metavar="T", help="0 for the likeliest answer.")
@json_option
@url_option
def generate(
    model: str,
    prompt: str | None,
    images: tuple[Path, ...],
    system: str,
    raw: bool,
    as_json: bool,
    url: str | None,
    **sampling: float | None,
) -> None:
    """Answer PROMPT by MODEL, streamed to standard output.

    Text that is piped in is the prompt, or follows PROMPT: `git diff | modelyard generate qwen "Summarise:"`.
    Exit status 0 only for a complete answer.
    """
    if raw and (images or system):
        raise CliError("--raw takes a prompt alone: no --image and no --system", Status.USAGE)
    text = _joined(prompt, _piped(required=prompt is None))
    body: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    body |= {key: value for key, value in sampling.items() if value is not None}
    with daemon_at(url) as daemon:
        if raw:
            printer = _answer(daemon, "/v1/completions", {**body, "prompt": text}, silent=as_json)
        else:
            if images:
                require_sight(daemon, model)
            content = content_of(text, [read_picture(image) for image in images])
            said: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
            body["messages"] = [*said, {"role": "user", "content": content}]
            printer = _answer(daemon, "/v1/chat/completions", body, silent=as_json)
    if as_json:
        terminal.print_json(_generated(model, printer))


def _answer(daemon: Daemon, path: str, body: dict[str, Any], *, silent: bool) -> AnswerPrinter:
    printer = AnswerPrinter(silent=silent)
    try:
        with ExitStack() as waiting:
            line = waiting.enter_context(terminal.status_line("waiting for the first word"))
            with daemon.stream(path, body) as lines:
                printer.print_all(parts(lines), on_note=line.say, on_first=waiting.close)
    finally:
        printer.end()
    return printer


def _generated(model: str, printer: AnswerPrinter) -> Generated:
    return Generated(
        model=model,
        text=printer.answer,
        reasoning=printer.reasoning,
        finish_reason=printer.finish_reason,
        usage=None if printer.usage is None else dict(printer.usage),
    )


def _joined(prompt: str | None, piped: str) -> str:
    text = "\n\n".join(part for part in (prompt, piped.strip()) if part and part.strip())
    if not text:
        raise CliError('there is no prompt: modelyard generate MODEL "…", or pipe one in', Status.USAGE)
    return text


def _piped(*, required: bool) -> str:
    """What stands on standard input, if anything was put there.

    With a prompt given, only a pipe or a file counts: a service's or a job's standard input may be a socket
    or something else that never ends.
    """
    if sys.stdin.isatty():
        return ""
    if not required:
        try:
            kind = os.fstat(sys.stdin.fileno()).st_mode
        except (OSError, ValueError):
            kind = stat.S_IFREG  # a stand-in object: reading it costs nothing
        if not (stat.S_ISFIFO(kind) or stat.S_ISREG(kind)):
            return ""
    return sys.stdin.read()
