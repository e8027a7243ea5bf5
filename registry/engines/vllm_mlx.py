"""vllm-mlx: continuous batching on Apple Silicon; text models run on a Linux CPU too.

Seen with 0.6.0: it loads before it listens, so that a refused connection means loading; `/health` is 200 even
when loading failed, and its body tells; one name is served and no other accepted; `--api-key` exists as an
argument only, where every user of the machine could read it, so it gets none. It drains without a limit on
SIGTERM, and the KILL after the grace is what bounds it.
"""

from __future__ import annotations

from config.vocabulary import EngineName
from registry.capability import Capability
from registry.engine import (
    HOST,
    Diagnosis,
    Footprint,
    HttpOk,
    Installation,
    LaunchSpec,
    Lists,
    Machine,
    PortOwned,
    StopPolicy,
    Wire,
)
from registry.engines.diagnosis import diagnose, rule
from registry.engines.launching import (
    checkpoint_of,
    environment,
    generates,
    no_checkpoint,
    options_of,
    unusable_id,
)
from registry.engines.mlx_lm import MAX_TOKENS, READABLE_QUANTIZATIONS
from registry.footprint import MIB, VLLM_MLX, conversation_cache, on_demand
from registry.model import Model

_RULES = (
    rule(r"(?:ValueError: )?(Model type (\S+) not supported\.?)", "unsupported_architecture", cause="{1}",
         remedy="vllm-mlx does not know this architecture; try another engine or a newer vllm-mlx"),
    rule(r"(Could not import module 'AutoProcessor'.*)", "engine_broken", cause="{1}",
         remedy="remove torchvision from the engine's environment"),
    rule(r"(?:FileNotFoundError: )?(No safetensors found in .+)", "bad_checkpoint", cause="{1}",
         remedy="download the model again"),
)  # fmt: skip


class VllmMlx:
    """The adapter for vllm-mlx."""

    name = EngineName.VLLM_MLX

    def refuses(self, model: Model, machine: Machine) -> str | None:
        """Local checkpoints in safetensors that generate; embedders only run beside a chat model there."""
        found = checkpoint_of(model)
        if reason := unusable_id(model) or no_checkpoint(model):
            return reason
        if not generates(model):
            return "vllm-mlx embeds and reranks only beside a chat model"
        if found.weight_format not in (None, "safetensors"):
            return f"vllm-mlx reads safetensors, not {found.weight_format}"
        if model.capabilities & {Capability.VISION, Capability.AUDIO} and not machine.apple_silicon:
            return "vllm-mlx runs multimodal models on Apple Silicon only"
        method = (found.quantization or "").partition("-")[0]
        if found.mlx_quantized or method in ("", "bf16", "fp16", "fp32", *READABLE_QUANTIZATIONS):
            return None
        return f"vllm-mlx cannot read weights quantised by {method}"

    def requirements(self, machine: Machine) -> tuple[str, ...]:
        """Off the Mac, without the pin, pip takes a torchvision that wants CUDA packages by the gigabyte."""
        if machine.system == "darwin":
            return ("vllm-mlx>=0.6,<0.7",)
        return ("torch==2.13.0", "mlx[cpu]", "vllm-mlx>=0.6,<0.7")

    def launch_spec(self, model: Model, installation: Installation, machine: Machine) -> LaunchSpec:
        """See the module."""
        options, found = options_of(model), checkpoint_of(model)
        context = model.facts.context_length.value
        cache = max(conversation_cache(found.kv, context), 64 * MIB)
        need = options.memory or on_demand(
            model.facts.size_bytes.value or 0, found.kv, context=context, overhead=VLLM_MLX
        )
        # `auto` finds the format of the calls in the answer itself; without a parser tools are not parsed.
        tools = Capability.TOOL_USE in model.capabilities
        return LaunchSpec(
            model=model.id,
            engine=self.name,
            argv=(
                installation.script("vllm-mlx"),
                *("serve", str(model.path)),
                *("--served-model-name", model.id),
                *("--host", "127.0.0.1"),
                *("--port", "{port}"),
                "--continuous-batching",
                "--offline",
                *("--max-tokens", str(min(context or MAX_TOKENS, MAX_TOKENS))),
                *("--cache-memory-mb", str(-(-cache // MIB))),
                *(("--enable-auto-tool-choice", "--tool-call-parser", "auto") if tools else ()),
                *options.args,
            ),
            env=environment(model, {}),
            readiness=(
                PortOwned(),
                HttpOk("/health", json_key="model_loaded", json_value=True),
                Lists(model.id),
            ),
            stop=StopPolicy(),
            footprint=Footprint({HOST: need}, "models.memory" if options.memory else "estimate"),
        )

    def wire(self, model: Model) -> Wire:
        """One name, and every request must carry it."""
        return Wire(served_name=model.id, accepted_names=frozenset({model.id}))

    def diagnose(self, tail: tuple[str, ...], exit_code: int | None) -> Diagnosis:
        """See `registry.engines.diagnosis`."""
        return diagnose(tail, exit_code, _RULES)
