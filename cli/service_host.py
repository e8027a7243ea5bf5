"""Putting a service onto the machine and taking it away: files, systemctl, launchctl."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NotRequired, TypedDict

from cli.errors import CliError
from cli.units import (
    ACCOUNT,
    LABEL,
    NAME,
    Kind,
    Plan,
    Scope,
    UnitFile,
    install_command,
    launchd_path,
    systemd_folder,
    unit_files,
)

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
"""Runs a command of the service manager to its end and keeps what it says."""

SHOWN: Final = ("LoadState", "UnitFileState", "ActiveState", "SubState", "StatusText", "MainPID", "NRestarts")


@dataclass(frozen=True, slots=True)
class Host:
    """The machine, as far as services go. `root` is put before every path: tests have their own."""

    kind: Kind | None
    """None: neither of the two runs here."""
    run: Run
    root: Path = Path("/")

    def place(self, path: Path) -> Path:
        """Where *path* lies on this machine."""
        return self.root / path.relative_to("/")


class ServiceState(TypedDict):
    """A service: what `service status --json` prints."""

    manager: str
    """`systemd` or `launchd`."""
    scope: str
    """`user` or `system`."""
    installed: bool
    files: list[str]
    """Those of its files that are there."""
    differs: list[str]
    """Those that are not what `service install` would write today."""
    install: str
    """The command that installs it, and mends what differs."""
    enabled: bool
    """It starts with the machine, or when its owner logs in."""
    running: bool
    state: NotRequired[str]
    """In systemd's words: `active (running)`."""
    pid: int | None
    restarts: int | None
    status: str
    """What the daemon says of itself in one line."""


def this_host() -> Host:
    """The machine we are on."""
    if sys.platform == "darwin":
        return Host(Kind.LAUNCHD, _run)
    # As sd_booted(3) has it: the folder exists exactly where systemd is process 1.
    if Path("/run/systemd/system").is_dir() and shutil.which("systemctl"):
        return Host(Kind.SYSTEMD, _run)
    return Host(None, _run)


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603  # fixed words
    except OSError as problem:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: {problem.strerror}")


# -- doing it --------------------------------------------------------------------------------------


def install(plan: Plan, host: Host) -> list[str]:
    """Write what differs, switch it on, start it; returns what was done. Raises CliError."""
    kind = kind_of(host)
    changed = [file for file in unit_files(plan, kind) if _write(host.place(file.path), file)]
    _drop_socket(plan, host)
    said = [f"{file.path} written" for file in changed] or ["the files are as they should be"]
    if kind is Kind.LAUNCHD:
        return [*said, *_switch_on_launchd(plan, host, changed=bool(changed))]
    if plan.scope is Scope.SYSTEM and plan.account == ACCOUNT:
        _must(host, ["systemd-sysusers", str(host.place(Path("/etc/sysusers.d") / f"{NAME}.conf"))])
    control = _systemctl(plan)
    was_running = _properties(host, control).get("ActiveState") == "active"
    if changed:
        _must(host, [*control, "daemon-reload"])
    if plan.socket and not was_running:
        # First the port, so that the daemon finds it and does not bind it itself.
        _must(host, [*control, "enable", "--now", f"{NAME}.socket"])
    _must(host, [*control, "enable", "--now", f"{NAME}.service"])
    if was_running and changed:
        said.append(f"it runs as it was until `{' '.join(control)} restart {NAME}`, which stops its models")
    else:
        said.append(f"{NAME} is on: `{' '.join(control)} status {NAME}`, `modelyard status`")
    if plan.scope is Scope.USER:
        said.append("it ends when you log out, unless you run `loginctl enable-linger` once")
    return said


def uninstall(plan: Plan, host: Host) -> list[str]:
    """Stop it and remove its files; returns what was done. Raises CliError when it cannot be stopped."""
    kind = kind_of(host)
    files = [file.path for file in unit_files(plan, kind) if host.place(file.path).exists()]
    if not files:
        return ["it is not installed"]
    if kind is Kind.LAUNCHD:
        host.run(["launchctl", "bootout", f"{_domain(plan)}/{LABEL}"])
    else:
        units = [path.name for path in files if path.suffix in (".service", ".socket")]
        _must(host, [*_systemctl(plan), "disable", "--now", *units])
    for path in files:
        _change(path, host.place(path).unlink)
    if kind is Kind.SYSTEMD:
        _must(host, [*_systemctl(plan), "daemon-reload"])
    return [f"{path} removed" for path in files]


def state_of(plan: Plan, host: Host) -> ServiceState:
    """Whether it is installed, switched on and running, and what differs from what `install` would write."""
    kind = kind_of(host)
    files = unit_files(plan, kind)
    present = [file for file in files if host.place(file.path).is_file()]
    differs = [str(file.path) for file in present if host.place(file.path).read_text() != file.text]
    found = ServiceState(
        manager=kind.value,
        scope=plan.scope.value,
        installed=bool(present),
        files=[str(file.path) for file in present],
        differs=differs,
        install=install_command(plan),
        enabled=False,
        running=False,
        pid=None,
        restarts=None,
        status="",
    )
    if kind is Kind.LAUNCHD:
        done = host.run(["launchctl", "print", f"{_domain(plan)}/{LABEL}"])
        found["enabled"], found["running"] = done.returncode == 0, "state = running" in done.stdout
        return found
    shown = _properties(host, _systemctl(plan))
    pid, restarts = shown.get("MainPID", "0"), shown.get("NRestarts", "")
    found["enabled"] = shown.get("UnitFileState") == "enabled"
    found["running"] = shown.get("ActiveState") == "active"
    found["state"] = f"{shown.get('ActiveState', 'unknown')} ({shown.get('SubState', '')})"
    found["pid"] = int(pid) if pid.isdecimal() and pid != "0" else None
    found["restarts"] = int(restarts) if restarts.isdecimal() else None
    found["status"] = shown.get("StatusText", "")
    return found


# -- parts -----------------------------------------------------------------------------------------


def _drop_socket(plan: Plan, host: Host) -> None:
    """Take back the socket unit of an earlier installation that wanted one."""
    path = systemd_folder(plan) / f"{NAME}.socket"
    if host.kind is Kind.SYSTEMD and not plan.socket and host.place(path).exists():
        _must(host, [*_systemctl(plan), "disable", "--now", path.name])
        _change(path, host.place(path).unlink)


def kind_of(host: Host) -> Kind:
    """Its service manager. Raises CliError when there is none."""
    if host.kind is None:
        raise CliError(
            "neither systemd nor launchd runs this machine: let what does run `modelyard serve` "
            "(`modelyard service install --print` shows what systemd would be told)"
        )
    return host.kind


def _write(place: Path, file: UnitFile) -> bool:
    """Make *place* hold the file; False when it does already."""
    if place.is_file() and place.read_text(encoding="utf-8") == file.text:
        return False

    def write() -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(file.text, encoding="utf-8")
        place.chmod(0o644)

    _change(file.path, write)
    return True


def _change(path: Path, how: Callable[[], None]) -> None:
    try:
        how()
    except OSError as problem:
        hint = ": as root, or with --user" if isinstance(problem, PermissionError) else ""
        raise CliError(f"{path} was not changed: {problem.strerror}{hint}") from problem


def _systemctl(plan: Plan) -> list[str]:
    return ["systemctl", "--user"] if plan.scope is Scope.USER else ["systemctl"]


def _properties(host: Host, control: Sequence[str]) -> dict[str, str]:
    done = host.run([*control, "show", f"{NAME}.service", f"--property={','.join(SHOWN)}"])
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines() if "=" in line)


def _must(host: Host, words: Sequence[str]) -> None:
    done = host.run(words)
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"it ended with {done.returncode}"
        raise CliError(f"`{' '.join(words)}` failed: {said}")


def _domain(plan: Plan) -> str:
    return "system" if plan.scope is Scope.SYSTEM else f"gui/{os.getuid()}"


def _switch_on_launchd(plan: Plan, host: Host, *, changed: bool) -> list[str]:
    name = f"{_domain(plan)}/{LABEL}"
    if host.run(["launchctl", "print", name]).returncode == 0:
        if not changed:
            return ["it is loaded already"]
        return [f"it runs as it was until `launchctl bootout {name}` and `modelyard service install`"]
    _must(host, ["launchctl", "bootstrap", _domain(plan), str(host.place(launchd_path(plan)))])
    return [f"{NAME} is on: `launchctl print {name}`, `modelyard status`"]
