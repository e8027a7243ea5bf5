"""NVML through a scripted binding that answers as the real one was seen to."""

from __future__ import annotations

from dataclasses import dataclass

from registry.engine import DeviceId
from supervisor.nvidia import Gpu, Nvml

GIB = 2**30


class ScriptedNVMLError(Exception):
    """As pynvml.NVMLError."""


@dataclass(slots=True)
class Memory:
    """nvmlMemory_t."""

    total: int
    free: int
    used: int


@dataclass(slots=True)
class Row:
    """nvmlProcessInfo_t; usedGpuMemory is None where the driver does not tell."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815 - the binding's name


class ScriptedNvml:
    """Two GPUs, of which the second may be broken."""

    NVMLError = ScriptedNVMLError

    def __init__(self) -> None:
        self.broken = False
        self.hides_processes = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - the binding's name
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802 - the binding's name
        if index == 1 and self.broken:
            raise ScriptedNVMLError("GPU is lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Memory:  # noqa: N802 - the binding's name
        return Memory(80 * GIB, 60 * GIB, 20 * GIB)

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:  # noqa: N802 - the binding's name
        return b"NVIDIA A100" if handle else "NVIDIA H100"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Row]:  # noqa: N802 - the binding's name
        if self.hides_processes:
            raise ScriptedNVMLError("Not Supported")
        return [Row(7, 2 * GIB), Row(8, None)]


def test_gpus_are_read_with_their_processes() -> None:
    first, second = Nvml(ScriptedNvml()).read()
    assert first == Gpu(DeviceId("gpu0"), "NVIDIA H100", 80 * GIB, 20 * GIB, 60 * GIB, {7: 2 * GIB})
    assert second.name == "NVIDIA A100"


def test_a_gpu_that_is_lost_does_not_hide_the_others() -> None:
    nvml = ScriptedNvml()
    nvml.broken = True
    assert [gpu.id for gpu in Nvml(nvml).read()] == ["gpu0"]


def test_a_driver_that_hides_processes_still_tells_the_totals() -> None:
    nvml = ScriptedNvml()
    nvml.hides_processes = True
    assert [gpu.by_pid for gpu in Nvml(nvml).read()] == [{}, {}]


def test_no_driver_is_no_gpu() -> None:
    reader = Nvml.open()
    assert all(gpu.total_bytes > 0 for gpu in reader.read())
    reader.close()
