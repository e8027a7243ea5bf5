"""`modelyard engine`: which engines there are, installing them and taking them away."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from cli import terminal
from cli.errors import CliError
from cli.installing import Installed, Plan, find_uv, install, read_marker, remove
from cli.options import json_option
from cli.terminal import Column
from config.places import engine_folder, engines_dir
from config.vocabulary import EngineName
from registry.engine import Engine, Machine
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
    Column("HERE", wide=True),
    Column("PATH", wide=True),
)

name_argument = click.argument("name", type=click.Choice(list(ADAPTERS)))


@click.group()
def engine() -> None:
    """Install and list engines. Each lives in an environment of its own: their pins exclude each other."""


@engine.command(name="list")
@json_option
def list_engines(as_json: bool) -> None:
    """Show the engines, what is installed, and how they run on this machine."""
    machine, configured = read_machine(), _configured_paths()
    found = [describe(name, machine, configured.get(name)) for name in ADAPTERS]
    if as_json:
        terminal.print_json(found)
        return
    rows = [(one["engine"], one["version"] or "-", one["here"], one["path"] or "-") for one in found]
    terminal.print_table(COLUMNS, rows)
    if not any(one["path"] for one in found):
        terminal.note(
            f"none is installed; for this machine: modelyard engine install {preferences(machine)[0]}"
        )


@engine.command(name="install")
@name_argument
@click.option("--upgrade", is_flag=True, help="Replace what is installed; if that fails, it stays.")
def install_engine(name: str, upgrade: bool) -> None:
    """Install engine NAME; does nothing when it is there already."""
    adapter, machine = ADAPTERS[name], read_machine()
    here = Plan(adapter.name, adapter.recipe(machine), _folder(adapter.name))
    before = read_marker(here.folder)
    if before is not None and not upgrade:
        _say_present(before, here)
        return
    started = time.monotonic()
    uv = find_uv()
    terminal.note(f"installing {name} into {here.folder} with {'uv' if uv else 'pip'}; log: {here.log}")
    with terminal.status_line(f"installing {name}") as line:

        def say(text: str) -> None:
            line.say(f"installing {name}: {text} ({terminal.duration(time.monotonic() - started)})")

        done = install(here, say, upgrade=upgrade, uv=uv)
    print(
        f"{name} {done.version} installed in {terminal.duration(time.monotonic() - started)}: {here.folder}"
    )


@engine.command(name="remove")
@name_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_engine(name: str, yes: bool) -> None:
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
    print(f"{name} removed")


@engine.command(name="path")
@name_argument
def engine_path(name: str) -> None:
    """Print the folder of engine NAME; exit status 1 when it is not installed."""
    folder = _folder(ADAPTERS[name].name)
    if read_marker(folder) is None:
        raise CliError(f"{name} is not installed: modelyard engine install {name}")
    print(folder)


def describe(name: str, machine: Machine, configured: Path | None) -> dict[str, Any]:
    """One engine as `engine list --json` shows it; a folder that the configuration names wins over ours."""
    adapter = ADAPTERS[name]
    folder = configured or _folder(adapter.name)
    marker = read_marker(folder)
    found = look_into(adapter.name, folder) if configured or marker else None
    return {
        "engine": name,
        "version": None if found is None else (found.version or "unknown"),
        "path": None if found is None else str(folder),
        "here": runs_on(adapter.name, machine),
        "requirements": list(adapter.recipe(machine).requirements),
        "installed_at": marker.installed_at if marker else None,
    }


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


def _say_present(present: Installed, plan: Plan) -> None:
    print(f"{present.engine} {present.version} is installed: {plan.folder}")
    if present.requirements != plan.recipe.requirements:
        wanted = " ".join(plan.recipe.requirements)
        terminal.note(
            f"it was installed from other requirements than today's ({wanted}): --upgrade replaces it"
        )
