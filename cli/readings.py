"""Reads the facts that `modelyard doctor` looks at. Thin: what they mean is `cli.checks`' business.

Nothing here raises: what cannot be read is unknown, and a configuration that is wrong is a fact like others.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from cli.catalog import demo_models
from cli.daemon import url_of
from cli.engines import ADAPTERS, runs_on
from cli.facts import EngineFacts, Facts, FolderFacts, NvidiaFacts, PortFacts
from config.errors import ConfigError
from config.listening import UNIX
from config.load import Loaded, find_config, load_settings
from config.places import engine_folder, engines_dir, state_dir
from config.schema import Settings, parse_listen
from config.vocabulary import EngineName
from registry.catalog import Catalog, build_catalog
from registry.discovery import Environment
from registry.engine import Machine
from registry.engine_choice import preferences
from registry.hub import hub_cache
from registry.installed import find_installations
from registry.machine import read_machine
from registry.model import Model

ASK_SECONDS: Final = 2.0
"""A daemon answers its status at once."""
NVIDIA_VENDOR: Final = "0x10de"
DISPLAY_CLASS: Final = "0x03"
"""PCI's class of display controllers, compute-only ones among them."""


def read_facts(config: Path | None, env: Mapping[str, str], cwd: Path) -> Facts:
    """Everything about this machine for the configuration that a daemon would use."""
    loaded, problems = read_config(config, env, cwd)
    settings, machine = loaded.settings, read_machine()
    where = Environment(env, engines_dir(env), demo_dir=demo_models())
    catalog = build_catalog(settings, machine, where)
    models = tuple(catalog.models.values())
    return Facts(
        machine=machine,
        settings=settings,
        state=read_folder(settings.state_dir or state_dir(env)),
        hub=read_folder(hub_cache(env)),
        version=_version(),
        python=platform.python_version(),
        config_path=loaded.path,
        config_problems=problems,
        models=models,
        default_model=_default(catalog, settings),
        engines=read_engines(settings, machine, env),
        nvidia=read_nvidia(machine),
        ports={address: read_port(address) for address in settings.addresses},
        free_ram_bytes=_free_ram(),
        shared_memory_bytes=_shared_memory(),
        cpu_flags=cpu_flags(_text(Path("/proc/cpuinfo"))),
        has_libnuma=_has_library("libnuma.so.1"),
        offline_by=offline_by(env),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        missing_programs=missing_programs(models, env),
        unset_keys={
            endpoint.name: endpoint.key_env
            for endpoint in settings.endpoints or ()
            if endpoint.key_env and not env.get(endpoint.key_env)
        },
    )


def read_config(config: Path | None, env: Mapping[str, str], cwd: Path) -> tuple[Loaded, tuple[str, ...]]:
    """The settings and no problems; or the defaults, and what is wrong with the file."""
    try:
        return load_settings(find_config(config, env, cwd), env), ()
    except ConfigError as error:
        return Loaded(Settings(endpoints=()), None), tuple(str(problem) for problem in error.problems)


def _default(catalog: Catalog, settings: Settings) -> str | None:
    return None if settings.default_model is None else catalog.default_model


def _version() -> str:
    from modelyard import __version__

    return __version__


# -- engines and devices ---------------------------------------------------------------------------


def read_engines(settings: Settings, machine: Machine, env: Mapping[str, str]) -> tuple[EngineFacts, ...]:
    """Every engine, the best for this machine first."""
    folder = engines_dir(env)
    configured = {str(name): entry for name, entry in settings.engines.items()}
    installed = find_installations(configured, folder)
    best = preferences(machine)
    rest = [engine for engine in map(EngineName, ADAPTERS) if engine not in best]
    found = []
    for engine in (*best, *rest):
        entry = configured.get(engine.value)
        named = None if entry is None else entry.path
        place = named or engine_folder(folder, engine)
        there = installed.get(engine)
        found.append(
            EngineFacts(
                name=engine,
                here=runs_on(engine, machine),
                folder=place,
                version=None if there is None else there.version or "of unknown version",
                is_half=there is None and place.is_dir(),
                is_named=named is not None,
            )
        )
    return tuple(found)


def read_nvidia(machine: Machine) -> NvidiaFacts:
    """What there is of NVIDIA."""
    if machine.system != "linux":
        return NvidiaFacts()
    problem = "" if machine.gpus else _nvml_problem()
    on_bus = nvidia_on_bus(Path("/sys/bus/pci/devices"))
    return NvidiaFacts(on_bus, problem, has_uvm=Path("/dev/nvidia-uvm").exists())


def nvidia_on_bus(devices: Path) -> bool:
    """Whether a display controller of NVIDIA is among the PCI *devices*."""
    with suppress(OSError):
        return any(
            _text(device / "vendor").strip() == NVIDIA_VENDOR
            and _text(device / "class").startswith(DISPLAY_CLASS)
            for device in devices.iterdir()
        )
    return False


def _nvml_problem() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        pynvml.nvmlShutdown()
    except Exception as error:  # noqa: BLE001  NVMLError, OSError, ImportError: its words are the fact
        return str(error)
    return "it lists no GPU"


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The instruction sets in /proc/cpuinfo; empty where it does not say."""
    line = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _free_ram() -> int | None:
    import psutil

    return int(psutil.virtual_memory().available)


def _shared_memory() -> int | None:
    shared = Path("/dev/shm")  # noqa: S108  it is what is measured
    return shutil.disk_usage(shared).total if shared.is_dir() else None


# -- places ----------------------------------------------------------------------------------------


def read_folder(path: Path) -> FolderFacts:
    """What this account can do with *path*; of one that is not there, whether it can be made."""
    exists = path.is_dir()
    there = next((one for one in (path, *path.parents) if one.exists()), Path("/"))
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(there).free
    return FolderFacts(
        path=path,
        exists=exists,
        is_ours=not exists or there.stat().st_uid == os.geteuid(),
        readable=os.access(there, os.R_OK | os.X_OK),
        # A file in the way can be written too, and is no folder.
        writable=there.is_dir() and os.access(there, os.W_OK | os.X_OK),
        free_bytes=free,
    )


def offline_by(env: Mapping[str, str]) -> str:
    """The variable that keeps the Hugging Face libraries off the network; "" when none does."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if env.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return name
    return ""


def missing_programs(models: tuple[Model, ...], env: Mapping[str, str]) -> dict[str, str]:
    """Models whose `cmd` starts a program that is not there."""
    commands = {model.id: model.spec.argv[0] for model in models if _is_command(model) and model.spec}
    return {
        model: program
        for model, program in commands.items()
        if shutil.which(program, path=env.get("PATH")) is None
    }


def _is_command(model: Model) -> bool:
    return model.engine is EngineName.COMMAND


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# -- the port --------------------------------------------------------------------------------------


def read_port(listen: str) -> PortFacts:
    """Whether the address is free, and else who has it."""
    if listen.startswith(UNIX):
        return _read_socket_file(Path(listen.removeprefix(UNIX)))
    host, port = parse_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the daemon does it: connections of the last run that linger are nobody.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return PortFacts("impossible", error.strerror or str(error))
    else:
        return PortFacts()
    pid, name = holder_of(port)
    if name == "systemd":
        # Not asked: a connection to its socket unit would start the daemon.
        return PortFacts("ours", "systemd keeps it for a unit, most likely modelyard.socket")
    daemon = _daemon_at(url_of(listen))
    if daemon:
        return PortFacts("ours", daemon)
    return PortFacts("taken", f"{name} (pid {pid})" if pid else "another process, of another account")


def _read_socket_file(path: Path) -> PortFacts:
    """The same of a socket file."""
    if not path.parent.is_dir():
        return PortFacts("impossible", f"there is no folder {path.parent}")
    if not path.exists():
        writable = os.access(path.parent, os.W_OK)
        return PortFacts() if writable else PortFacts("impossible", f"{path.parent} is not ours to write in")
    if not path.is_socket():
        return PortFacts("impossible", "something lies there that is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ASK_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return PortFacts()  # whoever left it is dead, and it is replaced
        except OSError as error:
            return PortFacts("impossible", error.strerror or str(error))
    daemon = _daemon_at(f"{UNIX}{path}")
    return PortFacts("ours", daemon) if daemon else PortFacts("taken", "another process")


def holder_of(port: int) -> tuple[int | None, str]:
    """(pid, name) of the process that listens on *port*, as far as this account may know."""
    import psutil

    with suppress(psutil.Error, OSError):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                return one.pid, psutil.Process(one.pid).name()
    return None, ""


def _daemon_at(url: str) -> str:
    """Who the modelyard at *url* is; "" when it is none."""
    import httpx

    path = url.removeprefix(UNIX) if url.startswith(UNIX) else None
    # Only who it says it is matters, and a certificate has another name than this address.
    transport = httpx.HTTPTransport(verify=False, uds=path)
    base = url if path is None else "http://localhost"
    with httpx.Client(transport=transport, base_url=base, timeout=ASK_SECONDS, trust_env=False) as client:
        try:
            found = client.get("/api/status")
            if found.status_code == httpx.codes.UNAUTHORIZED:  # it has keys, and we show none
                found = client.get("/", params={"format": "json"})
                said = found.json()
                return f"modelyard {said['version']} runs there" if said["name"] == "modelyard" else ""
            said = found.json()
            return f"modelyard {said['version']} runs there (pid {said['pid']})"
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return ""
