"""`modelyard chat`: a conversation at the terminal, or one question from a pipe."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from cli import terminal
from cli.answer import parts
from cli.conversation import Conversation
from cli.daemon import Daemon
from cli.errors import CliError, Status
from cli.fleet import daemon_at
from cli.models import choosable
from cli.options import model_argument, url_option
from cli.pictures import read_picture, require_sight, sees
from cli.printer import AnswerPrinter

PROMPT: Final = ">>> "
MORE: Final = "... "
FENCE: Final = '"""'

MOST_PICTURES: Final = 8
"""With one question: what fits into a request (`limits.body_bytes`) as photographs."""

HELP: Final[Sequence[tuple[str, str]]] = (
    ("/model NAME", "talk to another model; what was said stays"),
    ("/models", "the models that can be asked for"),
    ("/system TEXT", "set the system text; without TEXT show it"),
    ("/image FILE", "send a picture with the next question; without FILE say what goes with it"),
    ("/clear", "forget what was said"),
    ("/save FILE", "write the conversation as JSON"),
    ("/bye", "leave (Ctrl-D too)"),
    (FENCE, "begins a text of many lines, and ends it"),
    ("Ctrl-C", "stops an answer"),
)


@click.command()
@model_argument(required=False)
@click.option("--system", default="", metavar="TEXT", help="System text.")
@click.option("--once", metavar="QUESTION", help="Ask one question, print the answer, leave.")
@url_option
def chat(model: str | None, system: str, once: str | None, url: str | None) -> int:
    """Talk to MODEL: streamed, with what was said before.

    Without MODEL: the daemon's default model, or the only one there is. With text on standard input that text
    is the one question. In the conversation, /help lists what else can be typed.
    """
    with daemon_at(url) as daemon:
        conversation = Conversation(model or default_model(daemon), system=system)
        question = once if once is not None else None if sys.stdin.isatty() else sys.stdin.read()
        if question is None:
            return _Session(daemon, conversation).run()
        if not question.strip():
            raise CliError("there is no question: standard input is empty", Status.USAGE)
        Answering(daemon, conversation).ask(question.strip())
        return Status.OK


def default_model(daemon: Daemon) -> str:
    """The daemon's default model, else the only one that can chat. Raises CliError when neither is there."""
    status = daemon.get("/api/status")
    if isinstance(status, dict) and status.get("default_model"):
        return str(status["default_model"])
    ids = choosable(daemon.get("/v1/models"))
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise CliError("there is no model to talk to: `modelyard models` shows what was found and why not")
    shown = ", ".join(ids[:8]) + (" …" if len(ids) > 8 else "")
    raise CliError(f"which model? `modelyard chat MODEL` with one of: {shown}", Status.USAGE)


@dataclass(frozen=True, slots=True)
class Answering:
    """Asks one question and prints the answer as it comes."""

    daemon: Daemon
    conversation: Conversation

    def ask(self, question: str) -> None:
        """Print the answer and keep the turn.

        Ctrl-C ends the answer on the server too and raises KeyboardInterrupt; what came is kept.
        Raises CliError when there is no answer or only a part of one.
        """
        printer = AnswerPrinter()
        try:
            with ExitStack() as waiting:
                line = waiting.enter_context(terminal.status_line("waiting for the first word"))
                stream = self.daemon.stream("/v1/chat/completions", self.conversation.request(question))
                with stream as lines:
                    printer.print_all(parts(lines), on_note=line.say, on_first=waiting.close)
        finally:
            printer.end()
            self.conversation.answered(question, printer.answer)


class _Session:
    """The conversation at a terminal: reads a line, obeys or asks, until it is told to leave."""

    def __init__(self, daemon: Daemon, conversation: Conversation) -> None:
        self._daemon = daemon
        self._conversation = conversation
        self._answering = Answering(daemon, conversation)
        self._commands: Mapping[str, Callable[[str], None]] = {
            "help": lambda _: _help(),
            "model": self._model,
            "models": self._models,
            "system": self._system,
            "image": self._image,
            "clear": self._clear,
            "save": self._save,
        }

    def run(self) -> Status:
        """Until Ctrl-D or /bye."""
        with suppress(ImportError):
            import readline  # noqa: F401  # gives input() its line editing and history

        terminal.note(f"{self._conversation.model} at {self._daemon.url}")
        terminal.note("/help lists what can be typed; Ctrl-D leaves")
        while True:
            try:
                text = self._read()
            except EOFError:
                print()
                return Status.OK
            except KeyboardInterrupt:
                terminal.note("\n(Ctrl-D leaves)")
                continue
            if text in ("/bye", "/exit", "/quit"):
                return Status.OK
            if text:
                self._obey(text)

    def _read(self) -> str:
        line = input(PROMPT)
        if not line.startswith(FENCE):
            return line.strip()
        text = [line.removeprefix(FENCE)]
        while not text[-1].endswith(FENCE):
            text.append(input(MORE))
        text[-1] = text[-1].removesuffix(FENCE)
        return "\n".join(text).strip()

    def _obey(self, text: str) -> None:
        try:
            if not text.startswith("/"):
                self._answering.ask(text)
                return
            word, _, rest = text[1:].partition(" ")
            command = self._commands.get(word)
            if command is None:
                _refuse(word)
            command(rest.strip())
        except CliError as problem:
            terminal.error(str(problem))
        except KeyboardInterrupt:
            terminal.note("(stopped)")

    def _model(self, name: str) -> None:
        if not name:
            print(self._conversation.model)
            return
        known = {str(entry.get("id")) for entry in _entries(self._daemon)}
        self._conversation.model = name
        print(
            name
            if name in known
            else f"{name} (not in the list; the daemon may still know it by another name)"
        )

        self._conversation.sees = sees(self._daemon, name)
        if self._conversation.has_pictures and not self._conversation.sees:
            print(f"({name} does not see pictures: they are left out while you talk to it)")

    def _image(self, name: str) -> None:
        pictures = self._conversation.pictures
        if name:
            require_sight(self._daemon, self._conversation.model)
            if len(pictures) >= MOST_PICTURES:
                raise CliError(f"{MOST_PICTURES} pictures go with the next question already: ask it")
            # As a terminal pastes a dropped file: quoted, or with its blanks escaped.
            pictures.append(read_picture(Path(_unquoted(name))))
        count = f"{len(pictures)} picture" + ("s" if len(pictures) != 1 else "")
        print(f"({count} will go with the next question)")

    def _models(self, _: str) -> None:
        for model in choosable({"data": _entries(self._daemon)}):
            print(f"{'*' if model == self._conversation.model else ' '} {model}")

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = text
        print(self._conversation.system or "(no system text)")

    def _clear(self, _: str) -> None:
        self._conversation.clear()
        print("(forgotten)")

    def _save(self, name: str) -> None:
        if not name:
            raise CliError("/save needs a file name")
        path = Path(name).expanduser()
        try:
            count = self._conversation.save(path)
        except OSError as problem:
            raise CliError(f"{path} was not written: {problem.strerror or problem}") from problem
        print(f"{count} messages in {path}")


def _help() -> None:
    left = max(len(typed) for typed, _ in HELP) + 2
    width = max(terminal.columns(sys.stdout) - left, terminal.NARROWEST_TEXT)
    for typed, meaning in HELP:
        first, *rest = textwrap.wrap(meaning, width)
        print(typed.ljust(left) + first)
        for line in rest:
            print(" " * left + line)


def _unquoted(name: str) -> str:
    try:
        words = shlex.split(name)
    except ValueError:
        return name
    return words[0] if len(words) == 1 else name


def _refuse(word: str) -> NoReturn:
    raise CliError(f"/{word} is none of the commands: /help lists them")


def _entries(daemon: Daemon) -> list[Mapping[str, Any]]:
    answer = daemon.get("/v1/models")
    return list(answer.get("data") or ()) if isinstance(answer, dict) else []
