"""Which engine serves a model on this machine. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from config.vocabulary import EngineName
from registry.engine import Engine, Installation, LaunchSpec, Machine
from registry.engines.command import Command
from registry.engines.mlx_lm import MlxLm
from registry.engines.vllm import Vllm
from registry.engines.vllm_mlx import VllmMlx
from registry.errors import EngineMissingError, ModelUnusableError
from registry.model import Model

ENGINES: Mapping[EngineName, Engine] = {
    engine.name: engine for engine in (Vllm(), VllmMlx(), MlxLm(), Command())
}
"""Every adapter. They hold no state."""

NO_INSTALLATION = Installation(EngineName.COMMAND, "")
"""Of a command: it is installed where its template says."""


LOSES_CALLS: Final[Mapping[EngineName, frozenset[str]]] = {
    EngineName.VLLM_MLX: frozenset({"GptOssForCausalLM"}),
}
"""Architectures whose tool calls an engine loses, so that any other goes before it. vllm-mlx 0.6 cleans the
channels of gpt-oss away before its parser looks (`tests/engines/test_tool_calls.py`)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine, and where it is installed or why the model cannot be served."""

    engine: EngineName
    installation: Installation | None = None
    problem: ModelUnusableError | None = None


def preferences(machine: Machine) -> tuple[EngineName, ...]:
    """Engines for `auto`, best first."""
    if machine.system == "darwin":
        return (EngineName.VLLM_MLX, EngineName.MLX_LM) if machine.apple_silicon else (EngineName.MLX_LM,)
    if machine.gpus:
        return (EngineName.VLLM, EngineName.MLX_LM, EngineName.VLLM_MLX)
    # Without a GPU mlx-lm starts in two seconds and takes 80 MB, where vLLM takes half a minute and 3 GB.
    return (EngineName.MLX_LM, EngineName.VLLM, EngineName.VLLM_MLX)


def choose(model: Model, machine: Machine, installed: Mapping[EngineName, Installation]) -> Choice:
    """The engine of *model*: the one its entry names, else the best that can serve it.

    Of those that can, one that is installed goes before one that is not.
    """
    options = model.options
    if options is not None and options.cmd is not None:
        return _one(EngineName.COMMAND, model, machine, {EngineName.COMMAND: NO_INSTALLATION})
    if options is not None and options.engine != "auto":
        return _one(EngineName(options.engine), model, machine, installed)
    architecture = None if model.checkpoint is None else model.checkpoint.architecture
    order = sorted(preferences(machine), key=lambda name: architecture in LOSES_CALLS.get(name, ()))
    choices = [_one(name, model, machine, installed) for name in order]
    for wanted in (_is_ready, _is_missing):
        for choice in choices:
            if wanted(choice):
                return choice
    reasons = dict.fromkeys(str(choice.problem).partition(": ")[2] for choice in choices)
    why = "; ".join(reasons)
    if len(reasons) > 1:
        why = f"no engine can serve it on this machine: {why}"
    return Choice(choices[0].engine, problem=ModelUnusableError(f"{model.id}: {why}"))


def launch_specs(
    engine: Engine, model: Model, installation: Installation, machine: Machine
) -> tuple[LaunchSpec, ...]:
    """How to start *model*, once for each set of GPUs that it may go on; never empty."""
    sets = engine.spreads(model, machine)
    machines = [machine.only(devices) for devices in sets] or [machine]
    return tuple(engine.launch_spec(model, installation, one) for one in machines)


def _one(
    name: EngineName, model: Model, machine: Machine, installed: Mapping[EngineName, Installation]
) -> Choice:
    reason = ENGINES[name].refuses(model, machine)
    if reason is not None:
        return Choice(name, problem=ModelUnusableError(f"{model.id}: {reason}"))
    installation = installed.get(name)
    if installation is None:
        how = f"run `modelyard engine install {name}`"
        return Choice(
            name,
            problem=EngineMissingError(f"{model.id} needs the engine {name}, which is not installed: {how}"),
        )
    return Choice(name, installation)


def _is_ready(choice: Choice) -> bool:
    return choice.problem is None


def _is_missing(choice: Choice) -> bool:
    return isinstance(choice.problem, EngineMissingError)
