"""mlx-lm: `mlx_lm.server`, text models on Apple Silicon, and on a CPU with the extra `cpu`.

Its peculiarities, seen with 0.32.2 and dealt with here:
- There is no served name: the request's `model` *selects* a model, and another name would be downloaded. What
  is equal to the `--model` argument is served as it is and echoed, so it is started with a relative symbolic
  link that has the model's id; nothing needs rewriting but aliases.
- `/health` answers 200 before anything is loaded, and 503 for ever once loading failed, with the process
  alive; `/v1/models` lists the hub's cache. Only an answer proves that it is ready.
- It scans the hub's cache at every `/v1/models` and answers nothing when there is none: it gets its own empty
  working directory as the cache.
- `max_tokens` defaults to 512, its prompt cache has no bound in bytes.
"""

from __future__ import annotations

from config.vocabulary import EngineName
from registry.engine import (
    HOST,
    DeviceId,
    Diagnosis,
    Footprint,
    HttpOk,
    Installation,
    InstallStep,
    LaunchSpec,
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
    first_words,
    generates,
    lacks_option,
    no_checkpoint,
    options_of,
    unusable_id,
)
from registry.engines.mlx_cache import mlx_cache
from registry.footprint import MIB, MLX_LM, conversation_cache, on_demand
from registry.model import Model

VERSION = "0.32.2"
"""The version that this adapter was written for and is tested with."""

DEFAULT_MODEL = "default_model"
"""Its name for what it was started with."""

MAX_TOKENS = 32768
"""Longest answer when the client sets no limit: as vllm-mlx, and enough for a model that thinks."""

READABLE_QUANTIZATIONS = ("awq", "gptq", "mxfp4", "mxfp8", "fp8", "nvfp4", "bitnet", "compressed-tensors")
"""What mlx-lm converts while loading, besides its own; the rest fails after minutes of reading."""

_PASSES = frozenset({"/v1/chat/completions", "/chat/completions", "/v1/completions", "/v1/models", "/health"})

_RULES = (
    rule(r"ValueError: (Model type (\S+) not supported\.?)", "unsupported_architecture", cause="{1}",
         remedy="mlx-lm does not know this architecture; try another engine or a newer mlx-lm"),
    rule(r"ValueError: (unsupported compressed-tensors .+|Only bits=.+ is supported.+|Unsupported model.+)",
         "unsupported_quantization", cause="{1}", remedy="use an MLX conversion of the model"),
    rule(r"(?:FileNotFoundError: )?(No safetensors found in .+)", "bad_checkpoint", cause="{1}",
         remedy="download the model again"),
    rule(r"(requires importing and running a custom module.*)", "needs_remote_code", cause="it {1}",
         remedy="set `trust_remote_code: true` if you trust its authors with this machine"),
)  # fmt: skip


class MlxLm:
    """The adapter for mlx-lm."""

    name = EngineName.MLX_LM

    def refuses(self, model: Model, machine: Machine) -> str | None:
        """Only local checkpoints in safetensors that generate text."""
        found = checkpoint_of(model)
        if reason := unusable_id(model) or no_checkpoint(model) or lacks_option(model, self.name):
            return reason
        if not generates(model):
            return "mlx-lm only generates text: it has no route for embeddings, reranking or speech"
        if found.weight_format not in (None, "safetensors"):
            return f"mlx-lm reads safetensors, not {found.weight_format}"
        method = found.quantization_method or (found.quantization or "").partition("-")[0]
        if found.mlx_quantized or method in ("", "bf16", "fp16", "fp32", *READABLE_QUANTIZATIONS):
            return None
        return f"mlx-lm cannot read weights quantised by {method}"

    def recipe(self, machine: Machine) -> Recipe:
        """On Linux mlx is an extra; without it pip installs no backend at all."""
        extra = "" if machine.system == "darwin" else "[cuda12]" if machine.gpus else "[cpu]"
        steps = (InstallStep((f"mlx-lm{extra}=={VERSION}",)),)
        return Recipe(steps, proof="import mlx_lm.server")

    def launch_spec(self, model: Model, installation: Installation, machine: Machine) -> LaunchSpec:
        """See the module."""
        options, kv = options_of(model), mlx_cache(checkpoint_of(model))
        context = model.facts.context_length.value
        cache = max(conversation_cache(kv, context), 64 * MIB)
        need = options.memory_bytes or on_demand(
            model.facts.size_bytes.value or 0, kv, context=context, overhead=MLX_LM
        )
        return LaunchSpec(
            model=model.id,
            engine=self.name,
            argv=(
                installation.script("mlx_lm.server"),
                *("--model", model.id),
                *("--host", "127.0.0.1"),
                *("--port", "{port}"),
                *("--max-tokens", str(min(context or MAX_TOKENS, MAX_TOKENS))),
                *("--prompt-cache-bytes", str(cache)),
                *(() if model.adapter is None else ("--adapter-path", str(model.adapter.path))),
                *(("--trust-remote-code",) if options.trust_remote_code else ()),
                *options.args,
            ),
            env=environment(model, {"HF_HUB_CACHE": "."}),
            links=((model.id, str(model.path)),),
            readiness=(
                PortOwned(),
                HttpOk("/health", fatal_statuses=(503,)),
                first_words(model, name=self.wire(model).served_name),
            ),
            # SIGTERM ends it at once, in the middle of an answer too: there is nothing to wait for.
            stop=StopPolicy(),
            footprint=Footprint({HOST: need}, "models.memory" if options.memory_bytes else "estimate"),
        )

    def spreads(self, model: Model, machine: Machine) -> tuple[tuple[DeviceId, ...], ...]:
        """It runs where MLX does."""
        return ()

    def wire(self, model: Model) -> Wire:
        """`adapters` and `draft_model` would make it load whatever a client names.

        An adapter is only there under the name of what it was started with: by any other it would load the
        model anew, without it.
        """
        name = model.id if model.adapter is None else DEFAULT_MODEL
        return Wire(
            served_name=name,
            accepted_names=frozenset({name}),
            strip_fields=("adapters", "draft_model"),
            passes=_PASSES,
        )

    def diagnose(self, tail: tuple[str, ...], exit_code: int | None) -> Diagnosis:
        """See `registry.engines.diagnosis`."""
        return diagnose(tail, exit_code, _RULES)
