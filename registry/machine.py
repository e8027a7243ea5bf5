"""What this machine is: system, RAM, NVIDIA GPUs. Read once, at start."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from config.budgets import gpu_budget
from config.schema import MemoryConfig
from registry.engine import DeviceId, Machine

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def read_machine() -> Machine:
    """This machine. Never raises: what cannot be found out is not there."""
    system: Literal["linux", "darwin"] = "darwin" if platform.system() == "Darwin" else "linux"
    arm = platform.machine().lower() in ("arm64", "aarch64")
    return Machine(
        system=system,
        arch="arm64" if arm else "x86_64",
        ram_bytes=_ram(),
        gpus=_nvidia_gpus() if system == "linux" else (),
    )


def within(machine: Machine, memory: MemoryConfig) -> Machine:
    """*machine* with what the operator lets instances take of its GPUs."""
    return replace(machine, budgets={gpu: gpu_budget(memory, gpu, total) for gpu, total in machine.gpus})


def _ram() -> int:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0
    try:
        limit = int(_CGROUP_LIMIT.read_text())
    except (OSError, ValueError):  # no such file, or `max`
        return total
    return min(total, limit)


def _nvidia_gpus() -> tuple[tuple[DeviceId, int], ...]:
    """Devices in NVML's order, which is the bus order that CUDA is told to use as well."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        with _nvml(pynvml):
            handles = [
                pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
            ]
            return tuple(
                (DeviceId(f"gpu{index}"), int(pynvml.nvmlDeviceGetMemoryInfo(handle).total))
                for index, handle in enumerate(handles)
            )
    except pynvml.NVMLError:
        return ()


@contextmanager
def _nvml(pynvml: object) -> Iterator[None]:
    pynvml.nvmlInit()  # type: ignore[attr-defined]  # the module is untyped
    try:
        yield
    finally:
        pynvml.nvmlShutdown()  # type: ignore[attr-defined]  # the module is untyped
