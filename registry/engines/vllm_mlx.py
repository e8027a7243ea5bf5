"""vllm-mlx: continuous batching on Apple Silicon; text models run on a Linux CPU too.

Seen with 0.6.0: it loads before it listens, so that a refused connection means loading; `/health` is 200 even
when loading failed, and its body tells; one name is served and no other accepted; an embedder is known by its
path alone, so that it is given a relative link with the model's id; `--api-key` exists as an argument only,
where every user of the machine could read it, so it gets none. It drains without a limit on SIGTERM, and the
KILL after the grace is what bounds it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from config.vocabulary import EngineName
from registry.capability import ENDPOINTS, Capability
from registry.engine import (
    HOST,
    Answers,
    BusyPage,
    DeviceId,
    Diagnosis,
    Footprint,
    HttpOk,
    Installation,
    InstallStep,
    LaunchSpec,
    Lists,
    Machine,
    PortOwned,
    ReadinessStep,
    Recipe,
    StopPolicy,
    Wire,
)
from registry.engines.causes import rule
from registry.engines.diagnosis import diagnose
from registry.engines.launching import (
    checkpoint_of,
    environment,
    generates,
    given,
    lacks_option,
    no_checkpoint,
    options_of,
    unusable_id,
)
from registry.engines.mlx_cache import mlx_cache
from registry.engines.mlx_lm import MAX_TOKENS, READABLE_QUANTIZATIONS
from registry.engines.torch_cpu import TORCH, TORCH_CPU
from registry.footprint import MIB, VLLM_MLX, conversation_cache, on_demand, weights_bytes
from registry.model import Model
from registry.parsers import parser_args

VERSION = "0.6.0"
"""The version that this adapter was written for and is tested with."""

_PASSES = frozenset(ENDPOINTS) | {
    "/health", "/metrics", "/openapi.json", "/v1/audio/voices", "/v1/cache", "/v1/cache/", "/v1/models",
    "/v1/requests/", "/v1/status",
}  # fmt: skip
"""Answers, and what it says of itself; not `/v1/mcp`, whose tools run with the daemon's rights."""

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
        """Local checkpoints in safetensors that generate or embed."""
        found = checkpoint_of(model)
        if reason := unusable_id(model) or no_checkpoint(model) or lacks_option(model, self.name):
            return reason
        if not generates(model) and Capability.EMBED not in model.capabilities:
            return "vllm-mlx only generates and embeds: it has no route for it alone"
        if found.weight_format not in (None, "safetensors"):
            return f"vllm-mlx reads safetensors, not {found.weight_format}"
        if model.capabilities & {Capability.VISION, Capability.AUDIO} and not machine.apple_silicon:
            return "vllm-mlx runs multimodal models on Apple Silicon only"
        method = found.quantization_method or (found.quantization or "").partition("-")[0]
        if found.mlx_quantized or method in ("", "bf16", "fp16", "fp32", *READABLE_QUANTIZATIONS):
            return None
        return f"vllm-mlx cannot read weights quantised by {method}"

    def recipe(self, machine: Machine) -> Recipe:
        """Off the Mac it would bring torch's CUDA build, 3 GB that nothing here can use."""
        engine, proof = f"vllm-mlx=={VERSION}", "import vllm_mlx.server"
        if machine.system == "darwin":
            return Recipe((InstallStep((engine,)),), proof=proof)
        # The pin again: without it a newer torchvision is chosen, which wants a newer torch.
        steps = (replace(TORCH_CPU, optional=True), InstallStep((f"torch=={TORCH}", "mlx[cpu]", engine)))
        # With it, off the Mac, embedding models fail: "Could not import module 'AutoProcessor'".
        return Recipe(steps, unwanted=("torchvision",), proof=proof)

    def launch_spec(self, model: Model, installation: Installation, machine: Machine) -> LaunchSpec:
        """See the module."""
        options = options_of(model)
        placed = _chat(model) if generates(model) else _embedder(model)
        return LaunchSpec(
            model=model.id,
            engine=self.name,
            argv=(
                installation.script("vllm-mlx"),
                *("serve", str(model.path)),
                *("--served-model-name", model.id),
                *("--host", "127.0.0.1"),
                *("--port", "{port}"),
                "--offline",
                *placed.args,
                *(parser_args(model, installation) if generates(model) else ()),
                *given("--gpu-memory-utilization", options.gpu_memory_utilization),
                *(("--trust-remote-code",) if options.trust_remote_code else ()),
                *options.args,
            ),
            env=environment(model, {}),
            links=placed.links,
            readiness=(PortOwned(), *placed.proof, Lists(model.id)),
            busy=BusyPage("/v1/status", ("num_running", "num_waiting")),
            stop=StopPolicy(),
            footprint=Footprint(
                {HOST: options.memory_bytes or placed.bytes},
                "models.memory" if options.memory_bytes else "estimate",
            ),
        )

    def spreads(self, model: Model, machine: Machine) -> tuple[tuple[DeviceId, ...], ...]:
        """It runs where MLX does."""
        return ()

    def wire(self, model: Model) -> Wire:
        """One name, and every request must carry it."""
        return Wire(served_name=model.id, accepted_names=frozenset({model.id}), passes=_PASSES)

    def diagnose(self, tail: tuple[str, ...], exit_code: int | None) -> Diagnosis:
        """See `registry.engines.diagnosis`."""
        return diagnose(tail, exit_code, _RULES)


@dataclass(frozen=True, slots=True)
class _Role:
    """What it is started as: arguments, how it proves that it is ready, bytes."""

    args: tuple[str, ...]
    proof: tuple[ReadinessStep, ...]
    bytes: int
    links: tuple[tuple[str, str], ...] = ()


def _chat(model: Model) -> _Role:
    context, kv = model.facts.context_length.value, mlx_cache(checkpoint_of(model))
    cache = max(conversation_cache(kv, context), 64 * MIB)
    return _Role(
        (
            "--continuous-batching",
            *("--max-tokens", str(min(context or MAX_TOKENS, MAX_TOKENS))),
            *("--cache-memory-mb", str(-(-cache // MIB))),
        ),
        (HttpOk("/health", json_key="model_loaded", json_value=True),),
        on_demand(model.facts.size_bytes.value or 0, kv, context=context, overhead=VLLM_MLX),
    )


def _embedder(model: Model) -> _Role:
    """There is no role without a chat model, so it is the chat model as well, and is never loaded as one."""
    body = json.dumps({"model": model.id, "input": "Hi"}, ensure_ascii=False).encode()
    return _Role(
        ("--lazy-load-model", "--embedding-model", model.id),
        (Answers("/v1/embeddings", body),),
        weights_bytes(model.facts.size_bytes.value or 0) + VLLM_MLX.host_bytes,
        links=((model.id, str(model.path)),),
    )
