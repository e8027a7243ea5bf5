"""`modelyard`: the commands, each imported when it is used, and what their failures look like.

`run` never shows a traceback for something an operator can act on: one line on stderr, a status that means
something (`cli.errors.Status`). `--debug` shows the rest.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Final

import click

from cli import terminal
from cli.errors import CliError, Status
from config.errors import ConfigError

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "serve": ("cli.serve", "Run the daemon in the foreground."),
    "ps": ("cli.fleet", "Show what runs and what is being started."),
    "models": ("cli.models", "Show the models that can be asked for."),
    "load": ("cli.fleet", "Start a model and wait until it answers."),
    "unload": ("cli.fleet", "Stop a model and wait until its memory is free."),
    "pin": ("cli.fleet", "Keep a model in memory."),
    "unpin": ("cli.fleet", "Let a pinned model be stopped again."),
    "restart": ("cli.restart", "Let a new process take over, without losing a request."),
    "status": ("cli.fleet", "Show the daemon, its memory and its models; --watch goes on."),
    "logs": ("cli.logs", "Show the last lines a model's engine wrote; -f goes on."),
    "explain": ("cli.explain", "Say why a request waited."),
    "chat": ("cli.chat", "Talk to a model."),
    "generate": ("cli.generate", "Answer one prompt."),
    "engine": ("cli.engines", "Install and list engines."),
    "service": ("cli.service", "Keep the daemon running under systemd or launchd."),
    "doctor": ("cli.doctor", "Say what is wrong with this machine, and how to mend it."),
    "key": ("cli.keys", "Make, list and revoke the keys that let callers in."),
    "config": ("cli.configuration", "Check the configuration, and reload it."),
    "completion": ("cli.completion", "Print the completion script for a shell."),
    "version": ("cli.version", "Show the version of the command and of the daemon."),
}
"""Name to (module, one line). The listing needs no command's module, so `-h` and completion stay quick."""


class Commands(click.Group):
    """A group that imports a command's module only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table: what one does first comes first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None for a name that is none."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `-h`, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _version() -> str:
    from modelyard import __version__

    return __version__


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"modelyard {_version()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def modelyard(debug: bool) -> None:
    """One OpenAI-compatible endpoint for many models.

    \b
    modelyard serve                 run the daemon
    modelyard models                what can be asked for
    modelyard chat [MODEL]          talk to a model
    modelyard ps                    what runs

    Commands that ask the daemon find it by --url, by $MODELYARD_URL, or where the configuration says.
    Exit status: 0 done, 1 failed, 2 wrong usage, 69 no daemon answers, 75 already running,
    78 wrong configuration.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; *arguments* default to the process's own."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words[: words.index("--") if "--" in words else None]
    try:
        # standalone_mode off: click would exit the process itself, and with statuses of its own.
        result = modelyard.main(words, prog_name="modelyard", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else Status.OK
    except CliError as problem:
        terminal.error(str(problem))
        return _after(problem.status, debug=debug)
    except ConfigError as problem:
        for one in problem.problems:
            terminal.error(str(one))
        return _after(Status.CONFIG, debug=debug)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.UsageError as problem:
        return _after(_usage(problem), debug=debug)
    except click.ClickException as problem:
        terminal.error(problem.format_message())
        return _after(Status.FAILURE, debug=debug)
    except (KeyboardInterrupt, click.Abort):
        return Status.INTERRUPTED
    except BrokenPipeError:
        # The reader left (`modelyard models | head -1`), and click had no chance to see it: let the
        # interpreter's own flush at exit go nowhere instead of complaining.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Status.FAILURE
    except Exception as problem:  # noqa: BLE001  # the last stop: one line instead of a traceback
        terminal.error(f"{type(problem).__name__}: {problem} (a bug of ours: --debug shows where)")
        return _after(Status.FAILURE, debug=debug)


def _usage(problem: click.UsageError) -> Status:
    hint = f" (see `{problem.ctx.command_path} -h`)" if problem.ctx else ""
    terminal.error(f"{problem.format_message()}{hint}")
    return Status.USAGE


def _after(status: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    return status
