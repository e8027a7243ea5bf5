"""Why an incarnation ended, in words: from what the check and the engine said. Pure."""

from __future__ import annotations

from registry.engine import Diagnosis, ModelId
from supervisor.errors import ModelFailedError
from supervisor.lifecycle import State
from supervisor.view import FailureView


def failed_error(
    model: ModelId, state: State, failure: FailureView | None, retry_in: float | None
) -> ModelFailedError:
    """The error for a request that the last *failure* concerns; *retry_in*: seconds until the next try."""
    cause = failure.cause if failure is not None else "unknown cause"
    remedy = f"; {failure.remedy}" if failure is not None and failure.remedy else ""
    what = "keeps failing" if state is State.FAILED else "failed to start"
    retry_after = None if retry_in is None else max(retry_in, 1.0)
    return ModelFailedError(f"{model} {what}: {cause}{remedy}", retry_after=retry_after)


def blamed(found: Diagnosis, reason: str, code: str, *, spoke: bool) -> Diagnosis:
    """What the readiness check gave up for is the cause, beside what the engine said if it *spoke*."""
    cause = f"{reason}; it said: {found.cause}" if spoke else reason
    return Diagnosis(cause, found.remedy, code or found.code)


def seen(diagnosis: Diagnosis, *, at: float, incarnation: int) -> FailureView:
    """*diagnosis* of that incarnation's end as it is shown; *at* in Unix seconds."""
    return FailureView(diagnosis.cause, diagnosis.remedy, diagnosis.code, at, incarnation)
