"""Whether every command has a test that runs it for real: those that are marked `command`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import click

from cli.main import COMMANDS, modelyard
from modelyard.outputs import OUTPUTS

HERE = Path(__file__).parent

WITHOUT_JSON = {
    "serve",  # its log has a format of its own
    "chat",  # for people; `generate --json` is the same for programs
    "completion",  # prints a shell's script
    "config schema",  # prints JSON in any case
}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Everything that can be typed and does something, by name."""
    context = click.Context(modelyard)
    for name in COMMANDS:
        command = modelyard.get_command(context, name)
        assert command is not None
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", one) for inner, one in command.commands.items())


def marked() -> set[str]:
    """The commands that some test in this folder is marked with."""
    found: set[str] = set()
    for file in HERE.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.command":
                found |= {ast.literal_eval(name) for name in node.args}
    return found


def test_every_command_is_run_against_a_real_daemon_by_a_test() -> None:
    assert marked() == {name for name, _ in commands()}


def test_every_command_has_json_and_a_schema_for_it_or_a_reason_why_not() -> None:
    with_json = {
        name
        for name, command in commands()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert with_json == {name for name, _ in commands()} - WITHOUT_JSON
    assert {name.partition(" --")[0] for name in OUTPUTS} == with_json


def test_whatever_asks_the_daemon_can_be_told_where_it_is() -> None:
    local = {"serve", "completion", "doctor", "models inspect"}
    groups = ("engine", "service", "config", "key add", "key revoke")
    for name, command in commands():
        if name not in local and not name.startswith(groups):
            assert any("--url" in parameter.opts for parameter in command.params), name
