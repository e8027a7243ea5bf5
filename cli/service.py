"""`modelyard service`: keep the daemon running under systemd or launchd."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, TypedDict

import click

from cli import terminal
from cli.errors import CliError, Status
from cli.options import json_option
from cli.service_host import Host, ServiceState, install, kind_of, state_of, this_host, uninstall
from cli.units import (
    ACCOUNT,
    NAME,
    STATE_HOME,
    Kind,
    Plan,
    Scope,
    choices_in,
    unit_files,
)

LOCKED_HOMES: Final = (Path("/root"), Path("/home"), Path("/Users"))
"""What lies below these belongs to a person, and another account cannot be expected to get in."""


class UnitText(TypedDict):
    """A file of the service."""

    path: str
    text: str


class ServiceChange(TypedDict):
    """What `service install --json` and `service uninstall --json` print."""

    done: list[str]
    """What was done, in words."""
    service: ServiceState
    """As it is afterwards."""


# -- the commands ----------------------------------------------------------------------------------

_user = click.option("--user", "scope", flag_value=Scope.USER.value, help="Yours; the default but for root.")
_system = click.option("--system", "scope", flag_value=Scope.SYSTEM.value, help="The machine's; needs root.")


@click.group()
def service() -> None:
    """Keep the daemon running: a service of systemd or launchd."""


@service.command(name="install")
@_user
@_system
@click.option("--print", "only_print", is_flag=True, help="Print the files and change nothing.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Its file.")
@click.option(
    "--run-as", default=ACCOUNT, show_default=True, metavar="ACCOUNT", help="With --system: whom it runs as."
)
@click.option("--no-socket", is_flag=True, help="systemd: without the unit that keeps the port open.")
@json_option
def install_service(
    scope: str | None, only_print: bool, config: Path | None, run_as: str, no_socket: bool, as_json: bool
) -> None:
    """Write the service's files, switch it on and start it.

    Done again, it changes only what differs. A service that runs is not restarted: its models would stop.
    """
    plan = make_plan(_scope(scope), config=config, account=run_as, socket=not no_socket)
    host = this_host()
    if only_print:
        files = unit_files(plan, host.kind or Kind.SYSTEMD)
        if as_json:
            terminal.print_json([UnitText(path=str(file.path), text=file.text) for file in files])
        else:
            print("\n".join(f"# {file.path}\n{file.text}" for file in files), end="")
        return
    if trouble := unreachable_program(plan):
        raise CliError(trouble)
    _say(install(plan, host), plan, host, as_json=as_json)


@service.command(name="uninstall")
@_user
@_system
@json_option
def uninstall_service(scope: str | None, as_json: bool) -> None:
    """Stop the service and remove its files. Configuration, state and engines stay."""
    host = this_host()
    plan = installed_plan(_scope(scope), host)
    _say(uninstall(plan, host), plan, host, as_json=as_json)


@service.command(name="status")
@_user
@_system
@json_option
def service_status(scope: str | None, as_json: bool) -> int:
    """Show whether it is installed and runs; exit status 1 when it does not run."""
    host = this_host()
    found = state_of(installed_plan(_scope(scope), host), host)
    if as_json:
        terminal.print_json(found)
    else:
        for line in lines_of(found):
            print(line)
    return Status.OK if found["running"] else Status.FAILURE


def _say(done: list[str], plan: Plan, host: Host, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(ServiceChange(done=done, service=state_of(plan, host)))
        return
    for line in done:
        print(line)


def _scope(given: str | None) -> Scope:
    return Scope(given) if given else Scope.SYSTEM if os.geteuid() == 0 else Scope.USER


# -- what is wanted --------------------------------------------------------------------------------


def make_plan(
    scope: Scope, *, config: Path | None = None, account: str = ACCOUNT, socket: bool = True
) -> Plan:
    """The service for this program, with the address that its configuration says."""
    from config.load import find_config, load_settings

    config = None if config is None else config.absolute()
    # A service neither starts here nor has our environment: of what is found, only its own places count.
    found = config or find_config(None, {"HOME": str(Path.home())}, Path("/"))
    listen = load_settings(found, os.environ).settings.addresses
    home = Path.home() if scope is Scope.USER else STATE_HOME if account == ACCOUNT else home_of(account)
    return Plan(
        command=this_program(),
        scope=scope,
        config=config,
        listen=listen,
        socket=socket,
        account=account,
        home=home,
    )


def installed_plan(scope: Scope, host: Host) -> Plan:
    """The service that is installed, as `install` would write it today; without one, the ordinary one."""
    plan, kind = make_plan(scope), kind_of(host)
    service = next(f.path for f in unit_files(plan, kind) if f.path.suffix in (".service", ".plist"))
    try:
        text = host.place(service).read_text(encoding="utf-8")
    except OSError:
        return plan
    chosen = choices_in(text, kind)
    socket = host.place(service.with_suffix(".socket")).exists()
    return make_plan(scope, config=chosen.config, account=chosen.account, socket=socket)


def home_of(account: str) -> Path:
    """The home of *account*. Raises CliError when there is no such account."""
    import pwd

    try:
        return Path(pwd.getpwnam(account).pw_dir)
    except KeyError:
        raise CliError(f"there is no account {account!r} on this machine", Status.USAGE) from None


def this_program() -> tuple[str, ...]:
    """The words that start this very installation, whatever PATH says."""
    script = Path(sys.executable).with_name(NAME)
    return (str(script),) if os.access(script, os.X_OK) else (sys.executable, "-m", NAME)


def unreachable_program(plan: Plan) -> str:
    """Why the account of a system service cannot run the program; "" if it can, as far as paths tell."""
    program = Path(plan.command[0])
    if plan.scope is Scope.USER or plan.account == "root":
        return ""
    for place in {program, program.resolve()}:
        if place.is_relative_to(plan.home):
            continue
        if any(place.is_relative_to(home) for home in LOCKED_HOMES):
            return (
                f"{place} lies in a person's home, where the account {plan.account!r} cannot run it: install "
                "modelyard where everybody can read it (/opt/modelyard, say), or choose --run-as or --user"
            )
    return ""


def lines_of(found: ServiceState) -> list[str]:
    """A state for people."""
    if not found["installed"]:
        return [f"not installed: `{found['install']}`"]
    words = ["running" if found["running"] else str(found.get("state") or "not running")]
    if found["pid"]:
        words.append(f"pid {found['pid']}")
    if found["restarts"]:
        words.append(f"restarted {found['restarts']} times")
    if not found["enabled"]:
        words.append("not switched on for the next start of the machine")
    lines = [", ".join(words), *([found["status"]] if found["status"] else [])]
    return lines + [f"{path} is not what it would be now: `{found['install']}`" for path in found["differs"]]
