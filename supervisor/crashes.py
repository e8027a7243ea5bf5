"""Crash memory of one instance: how often it fell, how long to wait, when it is a loop. No I/O, no clock."""

from __future__ import annotations

from collections import deque

from supervisor.policy import Policy, pause_after_crash


class CrashMemory:
    """Counts crashes in a sliding window and knows whether the next start is the half-open one."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        # More than the limit tells nothing new, and a loop must not grow a list.
        self._crashes: deque[float] = deque(maxlen=max(policy.crash_limit, 1) * 4)
        self.half_open = False
        """The instance was FAILED; one more crash and it is again."""

    def count(self, now: float) -> int:
        """Crashes within `crash_window` seconds before *now*."""
        horizon = now - self._policy.crash_window
        return sum(1 for at in self._crashes if at >= horizon)

    def add(self, now: float, *, proved: bool, jitter: float) -> float | None:
        """Remember a crash; seconds until the next start is allowed, or None for a crash loop."""
        self._crashes.append(now)
        crashes = self.count(now)
        if crashes >= self._policy.crash_limit or self.half_open:
            return None
        return pause_after_crash(self._policy, crashes=crashes, proved=proved, jitter=jitter)
