"""NVIDIA GPUs by NVML. The driver's library is only loaded when there is one; no GPU is a normal answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from registry.engine import DeviceId

log = structlog.get_logger("modelyard.memory")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU at one moment, bytes."""

    id: DeviceId
    name: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    by_pid: Mapping[int, int] = field(default_factory=dict)
    """Per process of this pid namespace, where the driver tells (not in every container)."""


class GpuReader(Protocol):
    """Where GPUs are read from."""

    def read(self) -> tuple[Gpu, ...]:
        """All GPUs now; empty when there are none. Never raises; may block for some milliseconds."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...


class NoGpus:
    """A machine without."""

    def read(self) -> tuple[Gpu, ...]:
        """None."""
        return ()

    def close(self) -> None:
        """Nothing to do."""


class Nvml:
    """`GpuReader` by nvidia-ml-py."""

    def __init__(self, nvml: Any) -> None:  # the module is untyped
        self._nvml = nvml
        self._warned = False

    @classmethod
    def open(cls) -> GpuReader:
        """A reader, or `NoGpus` when there is no driver."""
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception as error:  # noqa: BLE001 - NVMLError, OSError, ImportError: all mean no GPU for us
            log.debug("nvml_absent", reason=str(error))
            return NoGpus()
        return cls(pynvml)

    def read(self) -> tuple[Gpu, ...]:
        """All GPUs now. A GPU that fell off the bus is left out and warned of once."""
        found = []
        for index in range(self._count()):
            try:
                found.append(self._one(index))
            except self._nvml.NVMLError as error:
                self._warn(f"gpu{index}: {error}")
        return tuple(found)

    def close(self) -> None:
        """Let go of the driver."""
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:
            return

    def _count(self) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetCount())
        except self._nvml.NVMLError as error:
            self._warn(str(error))
            return 0

    def _one(self, index: int) -> Gpu:
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        name = self._nvml.nvmlDeviceGetName(handle)
        return Gpu(
            id=DeviceId(f"gpu{index}"),
            name=name.decode() if isinstance(name, bytes) else str(name),
            total_bytes=int(memory.total),
            used_bytes=int(memory.used),
            free_bytes=int(memory.free),
            by_pid=self._by_pid(handle),
        )

    def _by_pid(self, handle: Any) -> dict[int, int]:
        try:
            rows = self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except self._nvml.NVMLError:
            return {}
        return {int(row.pid): int(row.usedGpuMemory) for row in rows if row.usedGpuMemory is not None}

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("gpu_unreadable", reason=reason)
