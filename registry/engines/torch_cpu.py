"""torch for machines without a GPU: on the usual index its Linux wheel is the CUDA build, 3 GB larger."""

from __future__ import annotations

from typing import Final

from registry.engine import InstallStep

TORCH: Final = "2.13.0"
"""The version that both engines which need it here agree on."""

TORCH_CPU: Final = InstallStep((f"torch=={TORCH}+cpu",), index="https://download.pytorch.org/whl/cpu")
"""The CPU build, alone: its index has other people's packages too, and those are not to come from there."""
