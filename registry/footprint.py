"""How many bytes an instance will need, before it runs. Pure.

An estimate errs on both sides; the supervisor measures the real peak and uses that from the second start.
What must not happen is to refuse a model that fits, so engines that grow on demand are charged for a modest
conversation and not for the longest one they accept.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB, GIB = 2**10, 2**20, 2**30

WEIGHTS_FACTOR = 1.05
"""Loading keeps alignment, buffers and the odd cast tensor beside the weights themselves."""


@dataclass(frozen=True, slots=True)
class KvShape:
    """What a sequence's attention cache costs; made from config.json by `registry.checkpoint`."""

    full_layers: int
    """Layers that keep every token (for MLA: all of them)."""
    kv_heads: int
    head_dim: int
    value_bytes: int = 2
    sliding_layers: int = 0
    """Layers that keep at most `window` tokens."""
    window: int = 0
    latent: int = 0
    """MLA: values per token and layer (kv_lora_rank + qk_rope_head_dim) for all heads; 0 otherwise."""
    expanded: int = 0
    """MLA where an engine does not keep the latent vector: values per token and layer of all heads."""
    full_values: int = 0
    """Values per token of a layer that keeps every token, where it has other heads than one with a window."""
    state_bytes: int = 0
    """What a sequence keeps in layers without attention, however long it is."""

    @property
    def bytes_per_layer_and_token(self) -> int:
        """Keys and values of all heads; MLA keeps one latent vector and no pair."""
        if self.latent:
            return self.latent * self.value_bytes
        return 2 * self.kv_heads * self.head_dim * self.value_bytes

    @property
    def bytes_per_token(self) -> int:
        """What each further token costs once the windows are full."""
        each = self.full_values * self.value_bytes or self.bytes_per_layer_and_token
        return self.full_layers * each

    def bytes_for(self, tokens: int) -> int:
        """Bytes of the cache of one sequence of *tokens* tokens."""
        windowed = self.sliding_layers * min(tokens, self.window or tokens)
        return self.bytes_per_token * tokens + windowed * self.bytes_per_layer_and_token + self.state_bytes

    def tokens_in(self, budget: int, limit: int) -> int:
        """The longest sequence, up to *limit*, whose cache fits *budget* bytes."""
        if self.bytes_for(limit) <= budget:
            return limit
        low, high = 0, limit
        while low + 1 < high:
            middle = (low + high) // 2
            if self.bytes_for(middle) <= budget:
                low = middle
            else:
                high = middle
        return low


@dataclass(frozen=True, slots=True)
class Overhead:
    """What an engine's process takes besides weights and cache, measured with a tiny model."""

    host_bytes: int
    gpu_bytes: int = 0


MLX_LM = Overhead(host_bytes=192 * MIB)
"""mlx_lm.server 0.32.2 on CPU: 86 MB resident with a 0.6 MB model; the rest is scratch space of a prefill."""
VLLM_MLX = Overhead(host_bytes=512 * MIB)
"""vllm-mlx 0.6.0: 310 to 460 MB with the same model, 474 MB with a sentence embedder of 90 MB."""
VLLM_CPU = Overhead(host_bytes=1792 * MIB)
"""vLLM 0.32.0 CPU build without its cache, in MiB: API server 494, EngineCore 462, worker 505 with a tiny
model; the rest is for the activations of a larger one. The cache is zeroed: in memory from the start."""
VLLM_GPU = Overhead(host_bytes=3 * GIB, gpu_bytes=2 * GIB)
"""CUDA context, graphs and activations of the profile run: 1.5 to 3 GiB on the device."""
COMMAND = Overhead(host_bytes=128 * MIB)

CONVERSATION_TOKENS = 8192
"""What an engine that grows its cache on demand is charged for: an ordinary long conversation."""


def weights_bytes(size_bytes: int) -> int:
    """Bytes that *size_bytes* of weights on disk take in memory."""
    return round(size_bytes * WEIGHTS_FACTOR)


def conversation_cache(kv: KvShape | None, context: int | None) -> int:
    """Cache of one conversation of `CONVERSATION_TOKENS`, or of the whole context where that is shorter."""
    if kv is None:
        return 256 * MIB
    return kv.bytes_for(min(context or CONVERSATION_TOKENS, CONVERSATION_TOKENS))


def on_demand(size_bytes: int, kv: KvShape | None, *, context: int | None, overhead: Overhead) -> int:
    """Bytes of an engine that grows its cache in host memory as it is used (the MLX ones).

    One conversation in work and as much again in the prompt cache, which the adapters bound by that size.
    """
    return weights_bytes(size_bytes) + 2 * conversation_cache(kv, context) + overhead.host_bytes
