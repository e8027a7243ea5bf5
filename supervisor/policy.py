"""The numbers the supervisor decides by. Pure; filled from `config.schema` in `router.wiring`. Seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Defaults are those of `config.schema.AdmissionConfig` and `StartConfig`, where their reasons are."""

    max_wait: float = 60.0
    request_timeout: float = 600.0
    min_residency: float = 10.0
    settle: float = 0.5
    """Idle for this long, a model that was just loaded counts as used by nobody. A client that sends one
    request after another pauses for less; one agent that alternates between models waits no longer."""
    drain_grace: float = 600.0
    max_parallel_starts: int = 2
    free_timeout: float = 30.0
    queue_per_model: int = 256
    queue_total: int = 1024
    stop_grace: float = 20.0
    backoff_first: float = 5.0
    backoff_max: float = 120.0
    crash_limit: int = 5
    crash_window: float = 600.0
    retry_failed_after: float = 300.0
    port_retries: int = 3


def pause_after_crash(policy: Policy, *, crashes: int, proved: bool, jitter: float) -> float:
    """Seconds until the next start is allowed after the *crashes*-th crash in the window (from 1).

    An instance that had been serving (*proved*) comes back at once the first time: somebody's request is
    waiting, and most crashes of a healthy engine are one request's. Otherwise the pause doubles from
    `backoff_first` to `backoff_max`. *jitter* in [0, 1) stretches it by up to a fifth, so that models that
    fell together do not rise together.
    """
    step = crashes - 2 if proved else crashes - 1
    if step < 0:
        return 0.0
    pause: float = min(policy.backoff_first * 2.0 ** min(step, 20), policy.backoff_max)
    return pause * (1 + 0.2 * jitter)
