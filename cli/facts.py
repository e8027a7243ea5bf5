"""What `modelyard doctor` looks at: `cli.readings` reads these facts, `cli.checks` judges them. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from config.schema import Settings
from config.vocabulary import EngineName
from registry.engine import Machine
from registry.model import Model


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine on this machine."""

    name: EngineName
    here: str
    """How it runs on this machine, in words that begin with yes or no."""
    folder: Path
    version: str | None = None
    """None: it is not installed."""
    is_half: bool = False
    """The folder holds an installation that was never finished."""
    is_named: bool = False
    """The configuration says where it is."""


@dataclass(frozen=True, slots=True)
class NvidiaFacts:
    """What there is of NVIDIA."""

    on_bus: bool = False
    """A display controller of NVIDIA is on the PCI bus."""
    driver_problem: str = ""
    """What the driver's library says instead of listing GPUs."""
    has_uvm: bool = True
    """/dev/nvidia-uvm, which CUDA needs, is there."""


@dataclass(frozen=True, slots=True)
class PortFacts:
    """An address that the daemon is to listen on."""

    state: Literal["free", "ours", "taken", "impossible"] = "free"
    holder: str = ""
    """Who has it, or why it cannot be had."""


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """A folder that is read or written."""

    path: Path
    exists: bool = True
    is_ours: bool = True
    """It belongs to this account, or does not exist yet."""
    readable: bool = True
    writable: bool = True
    """Or, where it does not exist, can be made."""
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the checks look at; `cli.readings` fills it."""

    machine: Machine
    settings: Settings
    state: FolderFacts
    hub: FolderFacts
    version: str = ""
    python: str = ""
    config_path: Path | None = None
    config_problems: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()
    default_model: str | None = None
    """What `default_model` means; None when nobody knows it."""
    engines: tuple[EngineFacts, ...] = ()
    nvidia: NvidiaFacts = NvidiaFacts()
    ports: Mapping[str, PortFacts] = field(default_factory=dict)
    """By address; one that is not in it is free."""
    free_ram_bytes: int | None = None
    shared_memory_bytes: int | None = None
    cpu_flags: frozenset[str] = frozenset()
    """As /proc/cpuinfo has them; empty where nobody knows."""
    has_libnuma: bool = True
    offline_by: str = ""
    """The variable that keeps the Hugging Face libraries off the network."""
    open_files: int | None = None
    """Descriptors that this account's processes may have."""
    missing_programs: Mapping[str, str] = field(default_factory=dict)
    """Model to the program of its `cmd` that is not there."""
    unset_keys: Mapping[str, str] = field(default_factory=dict)
    """Endpoint to its `key_env` that is not set."""

    def installed(self, name: EngineName) -> bool:
        """Whether that engine can be started."""
        return any(one.name is name and one.version is not None for one in self.engines)

    def wants(self, name: EngineName) -> bool:
        """Whether that engine is installed, or models are to run on it."""
        return self.installed(name) or any(model.engine is name for model in self.models)
