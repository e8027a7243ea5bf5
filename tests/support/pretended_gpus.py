"""A modelyard that finds NVIDIA GPUs where there are none: `python pretended_gpus.py serve …`.

`PRETENDED_GPUS` names their bytes, separated by commas. The driver's library is all that is pretended: nobody
uses these GPUs, but whom the file `PRETENDED_USE` names: `{"0": {"4711": 1073741824}}`, GPU, pid, bytes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

SIZES = [int(size) for size in os.environ.get("PRETENDED_GPUS", "").split(",") if size]


class NVMLError(Exception):
    """What the library raises."""


def use() -> dict[str, dict[str, int]]:
    """Who is said to hold how much."""
    path = Path(os.environ.get("PRETENDED_USE", "/nonexistent"))
    found: dict[str, dict[str, int]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def library() -> ModuleType:
    """`pynvml`, as far as modelyard uses it."""
    made = ModuleType("pynvml")
    functions = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(SIZES),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda index: SimpleNamespace(
            total=SIZES[index], used=0, free=SIZES[index]
        ),
        "nvmlDeviceGetName": lambda index: f"Pretended {index}",
        "nvmlDeviceGetComputeRunningProcesses": lambda index: [
            SimpleNamespace(pid=int(pid), usedGpuMemory=size)
            for pid, size in use().get(str(index), {}).items()
        ],
    }
    for name, value in functions.items():
        setattr(made, name, value)
    return made


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.modules["pynvml"] = library()
    from modelyard.__main__ import main

    sys.exit(main())
