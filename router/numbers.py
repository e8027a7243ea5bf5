"""The numbers of the configuration as the front and the supervisor take them."""

from __future__ import annotations

from config.schema import Settings
from router.ports import FrontLimits
from supervisor.policy import Policy


def front_limits(settings: Settings) -> FrontLimits:
    """The front's bounds."""
    limits = settings.limits
    return FrontLimits(
        header_bytes=limits.header_bytes,
        header_count=limits.header_count,
        body_bytes=limits.body_bytes,
        buffered_bytes_per_model=limits.buffered_bytes_per_model,
        buffered_bytes_total=limits.buffered_bytes_total,
        connections=limits.connections,
        head_timeout=limits.head_timeout,
        body_timeout=limits.body_timeout,
        keep_alive=limits.keep_alive,
        first_byte_timeout=limits.first_byte_timeout,
        answer_timeout=limits.answer_timeout,
        tunnel_idle=limits.tunnel_idle,
        connections_per_client=limits.connections_per_client,
        idle_upstream=limits.idle_upstream,
        loading_comments=settings.loading != "off",
        loading_reasoning=settings.loading == "reasoning",
        loading_space=settings.loading_json == "space",
        patience=settings.patience,
    )


def policy_of(settings: Settings) -> Policy:
    """The supervisor's numbers."""
    admission, start = settings.admission, settings.start
    return Policy(
        max_wait=admission.max_wait,
        request_timeout=admission.request_timeout,
        min_residency=admission.min_residency,
        drain_grace=admission.drain_grace,
        max_parallel_starts=admission.max_parallel_starts,
        free_timeout=admission.free_timeout,
        queue_per_model=admission.queue_per_model,
        queue_total=admission.queue_total,
        stop_grace=start.stop_grace,
        backoff_first=start.backoff_first,
        backoff_max=start.backoff_max,
        crash_limit=start.crash_limit,
        crash_window=start.crash_window,
        retry_failed_after=start.retry_failed_after,
        port_retries=start.port_retries,
    )
