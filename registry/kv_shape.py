"""The attention cache of an architecture, from its configuration: which layers keep what per token. Pure.

Compared with the caches that mlx-lm 0.32.2 and vLLM 0.32.0 make of tiny models of these shapes
(tests/engines/test_caches.py); where the two differ, this is what vLLM keeps.
"""

from __future__ import annotations

from registry.footprint import KvShape
from registry.quantization import ELEMENT_BYTES
from registry.untrusted import Json, first_whole, mapping_of, text_of, whole_of, words_of

_SLIDING = ("sliding_attention", "chunked_attention", "sliding")
_FULL = ("full_attention", "attention", "full", "global", "hybrid")


def kv_shape(text: Json, dtype: str | None) -> KvShape | None:
    """What a sequence costs; None where the configuration does not say."""
    layers = first_whole(text, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads = first_whole(text, "num_attention_heads", "n_head", "n_heads", "num_heads")
    if layers is None or heads is None:
        return None
    value_bytes = min(ELEMENT_BYTES.get(dtype or "", 2), 4)
    state = _state_bytes(text, layers, value_bytes)
    full, sliding = _layer_kinds(text, layers)
    latent = whole_of(text.get("kv_lora_rank"))
    if latent is not None:
        rope = whole_of(text.get("qk_rope_head_dim")) or 0
        plain = whole_of(text.get("qk_nope_head_dim")) or 0
        values = whole_of(text.get("v_head_dim")) or plain
        kept = latent + rope
        if text_of(text.get("model_type")) == "minicpm3":
            kept = 2 * heads * (plain + rope)  # no engine keeps its latent vector; vLLM pads its values
        return KvShape(
            full,
            1,
            0,
            value_bytes,
            latent=kept,
            expanded=heads * (plain + rope + values),
            state_bytes=state,
        )
    hidden = first_whole(text, "hidden_size", "n_embd", "d_model", "dim") or 0
    head_dim = first_whole(text, "head_dim", "attention_head_dim", "kv_channels") or hidden // heads
    if head_dim == 0:
        return None
    kv_heads = _kv_heads(text, heads)
    return KvShape(
        full_layers=full,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_bytes=value_bytes,
        sliding_layers=sliding,
        window=first_whole(text, "sliding_window", "attention_chunk_size") or 0,
        full_values=_global_values(text, kv_heads, head_dim),
        state_bytes=state,
    )


def _kv_heads(text: Json, heads: int) -> int:
    if text.get("multi_query") is True and text.get("new_decoder_architecture") is not True:
        return 1
    attention = mapping_of(text.get("attn_config"))  # MPT and DBRX
    nested = first_whole(attention, "kv_n_heads")
    given = first_whole(
        text, "num_key_value_heads", "n_head_kv", "num_kv_heads", "n_kv_heads", "multi_query_group_num"
    )
    return given or nested or heads


def _global_values(text: Json, kv_heads: int, head_dim: int) -> int:
    """Gemma 4: its layers with full attention have wider and fewer heads than those with a window."""
    wide, few = whole_of(text.get("global_head_dim")), whole_of(text.get("num_global_key_value_heads"))
    if wide is None and few is None:
        return 0
    return 2 * (few or kv_heads) * (wide or head_dim)


def _layer_kinds(text: Json, layers: int) -> tuple[int, int]:
    """(layers that keep every token, layers that keep a window); linear layers are neither."""
    shared = whole_of(text.get("num_kv_shared_layers")) or 0
    kinds = words_of(text.get("layer_types")) or words_of(text.get("layers_block_type"))
    if kinds:
        own = kinds[: max(len(kinds) - shared, 0)]
        return sum(own.count(kind) for kind in _FULL), sum(own.count(kind) for kind in _SLIDING)
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:
        return pattern.count("*"), 0  # Nemotron-H: M is Mamba, - an MLP, * attention
    if (counted := _counted(text, layers)) is not None:
        return counted, 0
    if whole_of(text.get("attention_chunk_size")):
        # Llama 4: 0 in this list is a layer without RoPE, which sees all; without a list it is every fourth.
        without_rope = text.get("no_rope_layers")
        full = without_rope.count(0) if isinstance(without_rope, list) and without_rope else layers // 4
        return full, max(layers - full, 0)
    window = whole_of(text.get("sliding_window"))
    every = first_whole(text, "sliding_window_pattern", "_sliding_window_pattern")
    kind = text_of(text.get("model_type")) or ""
    if window and every is None:
        # Written before configurations listed their layers.
        every = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "gpt_oss": 2, "cohere2": 4}.get(kind)
    if every and window:
        full = layers // every
        return full, layers - full
    if window and text.get("use_sliding_window", True) is True:
        # Mistral v0.1: every layer slides.
        return (0, layers) if kind == "mistral" else (layers, 0)
    return layers, 0


def _counted(text: Json, layers: int) -> int | None:
    """Layers with attention in hybrids that say which ones they are."""
    for key in ("attn_layer_indices", "full_attn_idxs"):
        indices = text.get(key)
        if isinstance(indices, list) and indices:
            return len(indices)
    linear = mapping_of(text.get("linear_attn_config"))
    if isinstance(linear.get("full_attn_layers"), list):  # Kimi-Linear
        return len(linear["full_attn_layers"])
    if (every := whole_of(text.get("full_attention_interval"))) is not None:
        return layers // every
    if (period := whole_of(text.get("attn_layer_period"))) is not None:  # Jamba
        offset = text.get("attn_layer_offset")
        offset = offset if isinstance(offset, int) and not isinstance(offset, bool) and offset >= 0 else 0
        return len(range(offset, layers, period))
    return None


_STATE_BYTES = 4
"""Recurrent states are kept in float32, as mlx-lm does for all and vLLM for most of them."""


def _state_bytes(text: Json, layers: int, value_bytes: int) -> int:
    """What a sequence keeps in layers without attention, however long it is."""
    values, tail = _linear_values(text) or _delta_values(text) or _mamba_values(text) or _short_values(text)
    full, sliding = _layer_kinds(text, layers)
    kinds = text_of(text.get("model_type")) or ""
    # In Falcon-H1 every layer has both, side by side.
    kept = layers if kinds == "falcon_h1" else max(layers - full - sliding - _plain_layers(text), 0)
    return kept * (values * _STATE_BYTES + tail * value_bytes)


def _plain_layers(text: Json) -> int:
    pattern = text.get("hybrid_override_pattern")
    return pattern.count("-") if isinstance(pattern, str) else 0


# Of one layer: (values of its recurrent state, values of the tail of its convolution); None for another kind.


def _linear_values(text: Json) -> tuple[int, int] | None:
    """Gated delta net (Qwen3-Next, Qwen3.5): a matrix per value head."""
    keys, values = whole_of(text.get("linear_num_key_heads")), whole_of(text.get("linear_num_value_heads"))
    key_dim, value_dim = (
        whole_of(text.get("linear_key_head_dim")),
        whole_of(text.get("linear_value_head_dim")),
    )
    if not keys or not values or not key_dim or not value_dim:
        return None
    tail = (whole_of(text.get("linear_conv_kernel_dim")) or 4) - 1
    return values * key_dim * value_dim, tail * (2 * keys * key_dim + values * value_dim)


def _delta_values(text: Json) -> tuple[int, int] | None:
    """Kimi's delta attention: a matrix per head, and a convolution each for queries, keys and values."""
    linear = mapping_of(text.get("linear_attn_config"))
    heads, width = whole_of(linear.get("num_heads")), whole_of(linear.get("head_dim"))
    if not heads or not width:
        return None
    tail = (whole_of(linear.get("short_conv_kernel_size")) or 4) - 1
    return heads * width * width, 3 * tail * heads * width


def _mamba_values(text: Json) -> tuple[int, int] | None:
    """Mamba 2 (Granite 4, Nemotron-H, Falcon-H1): a state per head; Mamba 1 (Jamba) has no heads."""
    state = first_whole(text, "mamba_d_state", "ssm_state_size")
    if not state:
        return None
    tail = (first_whole(text, "mamba_d_conv", "conv_kernel") or 4) - 1
    heads = first_whole(text, "mamba_n_heads", "mamba_num_heads")
    width = first_whole(text, "mamba_d_head", "mamba_head_dim")
    if heads and width:
        groups = first_whole(text, "mamba_n_groups", "n_groups") or 1
        return heads * width * state, tail * (heads * width + 2 * groups * state)
    inner = (first_whole(text, "mamba_expand", "expand") or 2) * (whole_of(text.get("hidden_size")) or 0)
    return inner * state, tail * inner


def _short_values(text: Json) -> tuple[int, int]:
    """LFM2: nothing but the tail of a short convolution. Of all others, nothing."""
    kernel = whole_of(text.get("conv_L_cache")) or 1
    return 0, (kernel - 1) * (whole_of(text.get("hidden_size")) or 0)
