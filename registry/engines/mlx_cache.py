"""What the MLX engines keep of a sequence, where that is more than it needs. Pure.

Read in mlx-lm 0.32.2, whose text models vllm-mlx uses as well, and measured there.
"""

from __future__ import annotations

from dataclasses import replace

from registry.checkpoint import Checkpoint
from registry.footprint import KvShape

_EXPANDED = frozenset({"deepseek_v2", "minicpm3", "youtu_llm"})
"""MLA whose heads are kept apart; all others with MLA keep the latent vector."""

_WINDOWED = frozenset({
    "afmoe", "cohere2", "exaone4", "exaone_moe", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4",
    "gemma4_text", "gemma4_unified", "gpt_oss", "laguna", "llama", "llama4", "llama4_text", "mellum",
    "mimo_v2_flash", "ministral3", "mistral3", "muse_glimmer", "muse_spark", "olmo3", "plamo3", "spark2_5",
    "step3p5",
})  # fmt: skip
"""Whose layers with a window forget what is out of it; in all others (Gemma 2, Mistral) they keep all."""


def mlx_cache(found: Checkpoint) -> KvShape | None:
    """The cache of a sequence there; None where the configuration does not say."""
    kv = found.kv
    if kv is None:
        return None
    if kv.latent and found.model_type in _EXPANDED:
        return replace(kv, latent=kv.expanded)
    if kv.sliding_layers and found.model_type not in _WINDOWED:
        return replace(kv, full_layers=kv.full_layers + kv.sliding_layers, sliding_layers=0, window=0)
    return kv
