"""A modelyard that finds NVIDIA GPUs where there are none: `python pretended_gpus.py serve …`.

`PRETENDED_GPUS` names their bytes, separated by commas. The driver's library is all that is pretended: what
it is asked is answered as a driver does that nobody uses, and what runs "on" these GPUs takes none of them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

SIZES = [int(size) for size in os.environ.get("PRETENDED_GPUS", "").split(",") if size]


class NVMLError(Exception):
    """What the library raises."""


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
        "nvmlDeviceGetComputeRunningProcesses": lambda index: [],
    }
    for name, value in functions.items():
        setattr(made, name, value)
    return made


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.modules["pynvml"] = library()
    from modelyard.__main__ import main

    sys.exit(main())
