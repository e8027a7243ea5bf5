"""Why a request got no instance, by whose fault. HTTP is `router.errors`' business."""

from __future__ import annotations


class SupervisorError(Exception):
    """Base. `code` is stable and part of the API; the message says what, which model, why, what to do."""

    code = "supervisor_error"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which another try makes sense; None: it does not, or nobody knows."""


class ModelFailedError(SupervisorError):
    """The engine did not come up, or keeps crashing; the message carries the cause from its log."""

    code = "model_failed"


class ModelTooLargeError(SupervisorError):
    """The model can never fit the budget of this machine."""

    code = "model_too_large"


class QueueFullError(SupervisorError):
    """Too many requests wait already, for this model or in all."""

    code = "queue_full"


class WaitTimeoutError(SupervisorError):
    """The request waited as long as it may; the message names the phase that ate the time."""

    code = "wait_timeout"


class StoppingError(SupervisorError):
    """The daemon is shutting down, or the operator unloaded the model while requests waited for it."""

    code = "shutting_down"


class HandedOverError(SupervisorError):
    """Another daemon decides from now on; whoever waited here asks there, so nobody is answered this."""

    code = "handed_over"


class EndpointDownError(SupervisorError):
    """A configured endpoint does not answer its health check."""

    code = "endpoint_down"


class AlreadyRunningError(SupervisorError):
    """Another daemon holds this state directory; the message names its pid. Exit status 75."""

    code = "already_running"
