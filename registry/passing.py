"""Which paths of a model's server may be asked for as they are, under `/upstream/<id>/`. Pure.

Our engines have lists: what an engine has besides answers for people and gauges is for its developers, or
changes it under our feet (vLLM's `/sleep` gives memory away that stays reserved here). What an operator's own
command serves is his; but the paths by which vLLM is taken apart are never passed, whoever has started it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

DEVELOPMENT: Final = frozenset({
    "/sleep", "/wake_up", "/is_sleeping", "/collective_rpc", "/server_info", "/release_kv_cache_memory",
    "/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache", "/pause", "/resume", "/is_paused",
    "/abort_requests", "/get_world_size", "/init_weight_transfer_engine",
    "/shutdown_weight_transfer_engine", "/start_weight_update", "/update_weights",
    "/finish_weight_update", "/start_draft_weight_update", "/update_weight_version", "/weight_info",
    "/weight_checker", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/start_profile", "/stop_profile",
    "/fault_tolerance/apply", "/inference/v1/abort_requests", "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
})  # fmt: skip
"""vLLM's, under VLLM_SERVER_DEV_MODE and the like."""


def may_pass(path: str, passes: Collection[str] | None) -> bool:
    """Whether *path*, decoded and without dots to resolve, may be asked of a server that `Wire.passes` so."""
    bare = path.rstrip("/") or "/"
    if bare in DEVELOPMENT:
        return False
    if passes is None or bare == "/" or bare in passes:
        return True
    return any(one.endswith("/") and path.startswith(one) for one in passes)
