"""What instances may take of each device, by the operator's word. Pure."""

from __future__ import annotations

from typing import Final

from config.schema import MemoryConfig

HOST_SHARE: Final = 0.75
"""The rest is the desktop's, the page cache's and ours."""
GPU_SHARE: Final = 0.92
"""As vLLM's own default."""


def host_budget(memory: MemoryConfig, total: int) -> int:
    """Bytes of *total* RAM."""
    return budget(memory.host, total, HOST_SHARE)


def gpu_budget(memory: MemoryConfig, device: str, total: int) -> int:
    """Bytes of the *total* of GPU *device*: its own entry's, else what is said of each, else automatic."""
    setting = memory.gpu.get(device, "auto") if isinstance(memory.gpu, dict) else memory.gpu
    return budget(setting, total, GPU_SHARE)


def budget(setting: float | str, total: int, share: float) -> int:
    """Bytes that instances may take: `auto` is *share* of *total*, a float is a share, an int is bytes."""
    if isinstance(setting, str):
        return int(total * share)
    if isinstance(setting, float):
        return int(total * setting)
    return min(setting, total)
