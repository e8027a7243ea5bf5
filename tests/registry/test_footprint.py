"""Bytes before launch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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
