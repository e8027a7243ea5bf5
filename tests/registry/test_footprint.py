"""Bytes before launch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.checkpoint import Checkpoint
from registry.engines.mlx_cache import mlx_cache
from registry.engines.vllm_placement import CPU_BLOCK, reserved
from registry.footprint import GIB, MIB, MLX_LM, KvShape, conversation_cache, on_demand


def test_the_published_examples() -> None:
    llama_8b = KvShape(32, 8, 128)
    assert llama_8b.bytes_for(1) == 131072
    assert llama_8b.bytes_for(131072) == 16 * GIB
    assert KvShape(36, 8, 128).bytes_for(1) == 147456
    deepseek = KvShape(61, 1, 0, latent=576)
    assert deepseek.bytes_for(1) == 61 * 576 * 2


def test_sliding_layers_stop_growing_at_their_window() -> None:
    shape = KvShape(12, 8, 64, sliding_layers=12, window=128)
    per_layer = shape.bytes_per_layer_and_token
    assert shape.bytes_for(1000) == 12 * per_layer * 1000 + 12 * per_layer * 128


shapes = st.builds(
    KvShape,
    full_layers=st.integers(0, 80),
    kv_heads=st.integers(1, 64),
    head_dim=st.integers(1, 256),
    value_bytes=st.sampled_from([1, 2, 4]),
    sliding_layers=st.integers(0, 80),
    window=st.integers(0, 8192),
    latent=st.integers(0, 1024),
)


@given(shapes, st.integers(0, 64 * GIB), st.integers(1, 2**20))
def test_the_longest_sequence_in_a_budget_fits_and_one_more_does_not(
    shape: KvShape, budget: int, limit: int
) -> None:
    tokens = shape.tokens_in(budget, limit)
    assert 0 <= tokens <= limit
    assert shape.bytes_for(tokens) <= budget
    assert tokens == limit or shape.bytes_for(tokens + 1) > budget


def test_a_model_is_charged_for_a_conversation_and_not_for_its_whole_context() -> None:
    shape = KvShape(32, 8, 128)
    assert conversation_cache(shape, 131072) == GIB
    assert conversation_cache(shape, 1024) == 128 * MIB
    assert conversation_cache(None, 131072) == 256 * MIB
    need = on_demand(4 * GIB, shape, context=131072, overhead=MLX_LM)
    assert 6 * GIB < need < 7 * GIB


@pytest.mark.parametrize(
    ("kv", "context", "measured"),
    [
        # Of vLLM 0.32 on a CPU, in bytes for one request of full length: 6 layers like Gemma 3's, 4 like
        # Mistral's first, 4 like Gemma 2's.
        (KvShape(1, 2, 32, sliding_layers=5, window=512), 2048, 3_309_568),
        (KvShape(0, 2, 16, sliding_layers=4, window=512), 2048, 1_114_112),
        (KvShape(2, 2, 32, sliding_layers=2, window=512), 2048, 2_162_688),
    ],
)
def test_what_vllm_sets_aside_for_a_window(kv: KvShape, context: int, measured: int) -> None:
    assert 1 <= reserved(kv).bytes_for(context + CPU_BLOCK) / measured < 1.05


def test_vllm_fills_its_groups_of_layers_up() -> None:
    gemma3_1b = reserved(KvShape(4, 1, 256, sliding_layers=22, window=512))
    assert (gemma3_1b.full_layers, gemma3_1b.sliding_layers) == (4, 24)
    alike = reserved(KvShape(12, 1, 256, sliding_layers=13, window=512))
    assert (alike.full_layers, alike.sliding_layers) == (13, 13)
    plain = KvShape(32, 8, 128)
    assert reserved(plain) is plain


def test_mlx_keeps_more_of_some() -> None:
    latent = KvShape(27, 1, 0, latent=576, expanded=16 * 320)
    assert mlx_cache(Checkpoint(kv=latent, model_type="deepseek_v3")) == latent
    expanded = mlx_cache(Checkpoint(kv=latent, model_type="deepseek_v2"))
    assert expanded is not None
    assert expanded.bytes_per_token == 27 * 5120 * 2
    mistral = mlx_cache(
        Checkpoint(kv=KvShape(0, 8, 128, sliding_layers=32, window=4096), model_type="mistral")
    )
    assert mistral == KvShape(32, 8, 128)
    assert mlx_cache(Checkpoint()) is None
