"""LoRA adapters: small sets of weights on top of a model, asked for as `base:adapter`.

Only two small facts are read, of what kind it is and its rank. Nothing raises: what is wrong is the adapter's
problem, and its base is served all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from config.vocabulary import EngineName
from registry.hub import repository

MAX_CONFIG_BYTES = 2**20

_WEIGHTS = {
    "peft": ("adapter_model.safetensors", "adapter_model.bin"),
    "mlx": ("adapters.safetensors",),
}


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter of a model."""

    name: str
    path: Path | None = None
    layout: Literal["peft", "mlx"] | None = None
    """Who made it: Hugging Face's PEFT, which vLLM reads, or mlx-lm."""
    rank: int | None = None
    problem: str | None = None


def read_adapter(name: str, source: str, cache: Path) -> Adapter:
    """The adapter in the folder, or hub repository in *cache*, that *source* names."""
    if source.startswith("/"):
        path = Path(source)
    else:
        found = repository(cache, source)
        if found is None:
            return Adapter(name, problem=f"{source} is not on this machine: run `hf download {source}`")
        path = found.path
    try:
        with (path / "adapter_config.json").open("rb") as file:
            config = json.loads(file.read(MAX_CONFIG_BYTES))
    except OSError as error:
        why = f"{path}/adapter_config.json cannot be read: {error.strerror or error}"
        return Adapter(name, path, problem=why)
    except (ValueError, RecursionError):
        return Adapter(name, path, problem=f"{path}/adapter_config.json is not valid JSON")
    return _read(name, path, config if isinstance(config, dict) else {})


def _read(name: str, path: Path, config: dict[str, Any]) -> Adapter:
    parameters = config.get("lora_parameters")
    layout: Literal["peft", "mlx"] = "mlx" if isinstance(parameters, dict) else "peft"
    kind = config.get("peft_type")
    if layout == "peft" and kind != "LORA":
        return Adapter(name, path, problem=f"{path} is no LoRA adapter: its peft_type is {kind!r}")
    weights = _WEIGHTS[layout]
    if not any((path / one).is_file() for one in weights):
        return Adapter(name, path, layout, problem=f"partial download: {path}/{weights[0]} missing")
    rank = parameters.get("rank") if isinstance(parameters, dict) else config.get("r")
    known = rank if isinstance(rank, int) and not isinstance(rank, bool) and 0 < rank <= 4096 else None
    return Adapter(name, path, layout, known)


_LAYOUTS = {EngineName.VLLM: "peft", EngineName.MLX_LM: "mlx"}
"""Layouts of adapters that engines read; others serve none."""


def unfit(engine: EngineName, adapter: Adapter) -> str | None:
    """Why *engine* cannot serve *adapter*; None if it can."""
    wanted = _LAYOUTS.get(engine)
    if wanted is None:
        return f"{engine} serves no adapters, only vllm and mlx-lm do"
    if adapter.layout is not None and adapter.layout != wanted:
        return (
            f"{engine} reads adapters in the layout of {wanted}, {adapter.path} has that of {adapter.layout}"
        )
    return None


def served_beside(engine: EngineName, adapters: Iterable[Adapter]) -> tuple[Adapter, ...]:
    """Those of *adapters* that one instance of *engine* serves together with their base: vLLM's, if they fit.

    A broken one would end its start, and take the base with it.
    """
    if engine is not EngineName.VLLM:
        return ()
    return tuple(one for one in adapters if one.problem is None and unfit(engine, one) is None)
