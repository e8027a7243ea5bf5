"""What a service manager reads about us: systemd units and a launchd property list, as text. Pure.

`deploy/` holds the same texts for the ordinary places (a test compares them): `python -m cli.units deploy`
writes them again.
"""

from __future__ import annotations

import plistlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from xml.parsers.expat import ExpatError

LABEL: Final = "org.modelyard.daemon"
"""launchd's name for us; `router.service` knows a start by launchd by it."""
NAME: Final = "modelyard"
ACCOUNT: Final = "modelyard"
"""The system account that the service runs under unless another is named."""
STATE_HOME: Final = Path("/var/lib/modelyard")
"""Home of that account: state, engines and the Hugging Face cache lie below it."""
STOP_SECONDS: Final = 120
"""Open answers 10 s, a model 20 s to go and be killed; the daemon asks for more when its settings need it."""
OPEN_FILES: Final = 65536
"""Two descriptors per client connection (4096 by default), and room for a hundred engines."""


class Kind(StrEnum):
    """The service managers we write for."""

    SYSTEMD = "systemd"
    LAUNCHD = "launchd"


class Scope(StrEnum):
    """Whose service it is: one person's, or the machine's."""

    USER = "user"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Plan:
    """One service as it shall be."""

    command: tuple[str, ...]
    """Words that start modelyard, without `serve`; the first one is an absolute path."""
    scope: Scope = Scope.SYSTEM
    config: Path | None = None
    """Configuration, absolute; None: the daemon looks for it."""
    listen: str | tuple[str, ...] = "127.0.0.1:8080"
    """Address of the socket unit: `listen` of the configuration."""
    socket: bool = True
    """A socket unit as well, which keeps the port while the daemon is away."""
    account: str = ACCOUNT
    """Whom a system service runs as."""
    home: Path = STATE_HOME
    """That account's home."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables the daemon shall see, such as HF_HOME."""

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line of the daemon."""
        return (*self.command, "serve", *(() if self.config is None else ("--config", str(self.config))))


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A file for a service manager."""

    path: Path
    text: str


def unit_files(plan: Plan, kind: Kind) -> tuple[UnitFile, ...]:
    """The files of *plan*, in the order in which they are to be written."""
    if kind is Kind.LAUNCHD:
        return (UnitFile(launchd_path(plan), launchd_plist(plan)),)
    folder = systemd_folder(plan)
    files = [UnitFile(folder / f"{NAME}.service", systemd_service(plan))]
    if plan.socket:
        files.append(UnitFile(folder / f"{NAME}.socket", systemd_socket(plan)))
    if plan.scope is Scope.SYSTEM and plan.account == ACCOUNT:
        files.insert(0, UnitFile(Path("/etc/sysusers.d") / f"{NAME}.conf", sysusers()))
    return tuple(files)


def systemd_folder(plan: Plan) -> Path:
    """Where an administrator's units lie, or a person's."""
    if plan.scope is Scope.SYSTEM:
        return Path("/etc/systemd/system")
    return plan.home / ".config" / "systemd" / "user"


def launchd_path(plan: Plan) -> Path:
    """Where launchd looks for daemons, or for a person's agents."""
    library = Path("/Library/LaunchDaemons")
    if plan.scope is Scope.USER:
        library = plan.home / "Library" / "LaunchAgents"
    return library / f"{LABEL}.plist"


def install_command(plan: Plan) -> str:
    """What writes the files of *plan* again."""
    words = [NAME, "service", "install", f"--{plan.scope.value}"]
    if plan.config is not None:
        words += ["--config", str(plan.config)]
    if plan.scope is Scope.SYSTEM and plan.account != ACCOUNT:
        words += ["--run-as", plan.account]
    return shlex.join(words if plan.socket else [*words, "--no-socket"])


@dataclass(frozen=True, slots=True)
class Choices:
    """What was chosen for a service that is installed."""

    config: Path | None = None
    account: str = ACCOUNT


def choices_in(text: str, kind: Kind) -> Choices:
    """What the service file *text*, once written by us, was told to do; where it is damaged, the defaults."""
    words, account = _launchd_words(text) if kind is Kind.LAUNCHD else _systemd_words(text)
    config = words[words.index("--config") + 1 :] if "--config" in words else []
    return Choices(Path(config[0]) if config else None, account or ACCOUNT)


def _systemd_words(text: str) -> tuple[list[str], str]:
    lines = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    try:
        words = shlex.split(lines.get("ExecStart", ""))
    except ValueError:
        words = []
    return [word.replace("%%", "%").replace("$$", "$") for word in words], lines.get("User", "")


def _launchd_words(text: str) -> tuple[list[str], str]:
    try:
        job = plistlib.loads(text.encode())
    except (plistlib.InvalidFileException, ValueError, ExpatError):
        return [], ""
    return [str(word) for word in job.get("ProgramArguments", ())], str(job.get("UserName", ""))


# -- systemd ---------------------------------------------------------------------------------------


def systemd_service(plan: Plan) -> str:
    """The `.service` unit."""
    target = "multi-user.target" if plan.scope is Scope.SYSTEM else "default.target"
    account = _account(plan) if plan.scope is Scope.SYSTEM else ""
    also = f"Also={NAME}.socket\n" if plan.socket else ""
    body = _SERVICE.format(
        argv=" ".join(exec_word(word) for word in plan.argv),
        environment="".join(f"Environment={exec_word(f'{k}={v}')}\n" for k, v in plan.environment.items()),
        account=account,
        stop=STOP_SECONDS,
        files=OPEN_FILES,
    )
    return f"{body}{_hardening(plan)}\n[Install]\nWantedBy={target}\n{also}"


_SERVICE: Final = """\
[Unit]
Description=modelyard: one OpenAI-compatible endpoint for many models
After=network.target
# A crash loop ends here, and `systemctl status` says so.
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
{account}ExecStart={argv}
ExecReload=/bin/kill -HUP $MAINPID
{environment}\
# Engines outlive a daemon that crashed, and the next one takes them over: only the daemon is signalled, and
# it stops its models itself.
KillMode=process
Restart=on-failure
RestartSec=2
# 75: another daemon runs on this state directory. 78: the configuration is wrong. Neither passes by itself.
RestartPreventExitStatus=75 78
# The daemon pings from its event loop; one that hangs is restarted.
WatchdogSec=30
TimeoutStartSec=120
TimeoutStopSec={stop}
# One engine that the kernel kills for memory is a crash of that model, not the end of all.
OOMPolicy=continue
LimitNOFILE={files}
TasksMax=infinity
"""


def _account(plan: Plan) -> str:
    return (
        f"User={plan.account}\n"
        "StateDirectory=modelyard\n"
        "StateDirectoryMode=0700\n"
        "WorkingDirectory=%S/modelyard\n"
        "LimitMEMLOCK=infinity\n"
        "# With NoNewPrivileges an engine cannot make /dev/nvidia-uvm by itself; without NVIDIA this does\n"
        "# nothing.\n"
        "ExecStartPre=-+/usr/bin/nvidia-modprobe -c 0 -u\n"
    )


def _hardening(plan: Plan) -> str:
    if plan.scope is Scope.USER:
        return (
            "# A person's manager cannot sandbox without a user namespace, and a state directory of its own\n"
            "# would not be the one of `modelyard serve` by hand: neither is set here.\n"
        )
    home = "ProtectHome=read-only\n"
    if plan.home != STATE_HOME:
        # Somebody's own account: caches of engines and of the hub are written below the home.
        home = f"ReadWritePaths=-{exec_word(str(plan.home))}\n"
    return _HARDENING.format(home=home)


_HARDENING: Final = """\

# What engines on GPUs can live with. Not set, and why:
#   PrivateDevices, DevicePolicy   hide /dev/nvidia*, /dev/dri and /dev/kfd
#   ProtectClock                   implies a DevicePolicy, with the same end
#   MemoryDenyWriteExecute         kernels are compiled at run time
#   PrivateTmp                     a restart would take /tmp away from engines that go on running
#   SystemCallFilter               drivers share memory by calls that no list has (pidfd_getfd, ...)
#   DynamicUser                    a crash would give the account, and the engines' files, back
# RestrictNamespaces has to go where a model's `cmd` runs rootless containers.
NoNewPrivileges=yes
ProtectSystem=strict
{home}\
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
CapabilityBoundingSet=
# Engines write caches and shared memory; nobody else needs to read them.
UMask=0077
ReadWritePaths=/tmp /var/tmp /dev/shm
"""


def systemd_socket(plan: Plan) -> str:
    """The `.socket` unit: the port stays open while the daemon is restarted, and clients wait."""
    addresses = (plan.listen,) if isinstance(plan.listen, str) else plan.listen
    lines = [f"ListenStream={listen_stream(address)}" for address in addresses]
    if any(address.startswith("unix:") for address in addresses):
        lines.append("# A socket file is for this account, unless you say otherwise.\nSocketMode=0600")
    return _SOCKET.format(listen="\n".join(lines))


_SOCKET: Final = """\
[Unit]
Description=modelyard's address

[Socket]
# As `listen:` in the configuration, which a daemon that is given this socket does not bind itself.
{listen}
Backlog=4096
NoDelay=yes

[Install]
WantedBy=sockets.target
"""


def sysusers() -> str:
    """The account, for systemd-sysusers."""
    return (
        f'u {ACCOUNT} - "modelyard, the model router" {STATE_HOME}\n'
        "# The groups that may use GPUs which are not open to everybody.\n"
        f"m {ACCOUNT} video\n"
        f"m {ACCOUNT} render\n"
    )


def listen_stream(listen: str) -> str:
    """`listen` as a socket unit writes it: `:8080` means IPv4 to us and would mean IPv6 there."""
    listen = listen.removeprefix("https://").removeprefix("unix:")
    return f"0.0.0.0{listen}" if listen.startswith(":") else listen


def exec_word(word: str) -> str:
    """*word* as one word of a unit's command line: quoted where it must be, `%` and `$` taken literally."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = text == word and word and not any(c.isspace() or c in "';" for c in word)
    return word if plain else f'"{text}"'


# -- launchd ---------------------------------------------------------------------------------------


def launchd_plist(plan: Plan) -> str:
    """The property list of a daemon, or of a person's agent."""
    logs = plan.home / "Library" / "Logs" if plan.scope is Scope.USER else Path("/usr/local/var/log")
    job: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": list(plan.argv),
        "RunAtLoad": True,
        # Again after a crash, and not after it was told to stop.
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 5,
        # Engines outlive a daemon that crashed, and the next one takes them over.
        "AbandonProcessGroup": True,
        "ExitTimeOut": STOP_SECONDS,
        # Else macOS slows it down as something that nobody waits for.
        "ProcessType": "Interactive",
        "SoftResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "HardResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "StandardOutPath": str(logs / f"{NAME}.log"),
        "StandardErrorPath": str(logs / f"{NAME}.log"),
        "WorkingDirectory": str(plan.home),
    }
    if plan.scope is Scope.SYSTEM:
        job["UserName"] = plan.account
    if plan.environment:
        job["EnvironmentVariables"] = dict(plan.environment)
    return plistlib.dumps(job, sort_keys=False).decode()


# -- deploy/ ---------------------------------------------------------------------------------------


def deployed() -> dict[str, str]:
    """The files of `deploy/`: name to text, for an installation in the ordinary places."""
    command = ("/usr/local/bin/modelyard",)
    system = Plan(command)
    agent = Plan(command, scope=Scope.USER, home=Path("/Users/you"))
    return {
        "modelyard.service": systemd_service(system),
        "modelyard.socket": systemd_socket(system),
        "modelyard.sysusers.conf": sysusers(),
        "user/modelyard.service": systemd_service(Plan(command, scope=Scope.USER)),
        f"{LABEL}.plist": launchd_plist(agent),
    }


def main(arguments: Sequence[str]) -> int:
    """Write the files of `deploy/` into the folder named; returns the exit status."""
    (folder,) = arguments
    for name, text in deployed().items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
