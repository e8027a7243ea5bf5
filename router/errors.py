"""Whose fault it is, as HTTP: the one table from an exception of ours to a refusal.

How clients behave decides the columns. The OpenAI and Anthropic SDKs retry 408, 409, 429 and every 5xx on
their own, wait as `Retry-After` says, and obey `x-should-retry: false`. Hence:

- 4xx: the request is at fault and another try of the same request cannot succeed.
- 429: this request is one too many right now; load balancers do not take the daemon for ill because of it.
- 503: the daemon is well, the model is not there now. With `Retry-After` where time helps, with
  `x-should-retry: false` where only the operator does.
- 507: the model does not fit this machine. Not 503, which probes and balancers read as "the service is down".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from registry import errors as registry
from router.ports import Refusal
from supervisor import errors as supervisor

INVALID_REQUEST: Final = "invalid_request_error"
RATE_LIMIT: Final = "rate_limit_error"
SERVER: Final = "server_error"

DO_NOT_RETRY: Final = ("x-should-retry", "false")

LONGEST_RETRY_AFTER: Final = 60.0
"""Seconds. SDKs ignore a longer `Retry-After` (older ones retry at once instead), and nobody sits through it
in silence: the refusal still says the time, but tells the SDK not to wait for it."""


class ControlError(Exception):
    """Base of what goes wrong at the control app itself. The message is shown to the caller."""

    code = "control_error"


class ControlBusyError(ControlError):
    """Every in-process connection to the control app is taken."""

    code = "control_busy"


class BadQueryError(ControlError):
    """A query parameter of the management API that cannot be understood."""

    code = "bad_query"


class BadConfigError(ControlError):
    """The configuration cannot be used, and the one before stays in force. One line per problem."""

    code = "config_invalid"


class BadDraftError(ControlError):
    """What was sent as a configuration to plan with is none."""

    code = "bad_draft"


class NotOursError(ControlError):
    """The model runs at a configured endpoint: there is nothing here to load, unload or read logs of."""

    code = "not_ours"


class NoExplanationError(ControlError):
    """No request of that id has waited lately."""

    code = "no_explanation"


class NoLogError(ControlError):
    """The model has not been started yet, so there is no log."""

    code = "no_log"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. The stable code comes from the exception class."""

    status: int
    type: str = INVALID_REQUEST
    param: str | None = None
    retry_after: float | None = None
    """Seconds to say when the exception names none."""
    permanent: bool = False
    """Only an operator can change the answer: SDKs are told not to retry."""


TABLE: Final[Mapping[type[Exception], Row]] = MappingProxyType(
    {
        registry.ModelNotFoundError: Row(404, param="model"),
        registry.AmbiguousModelError: Row(400, param="model"),
        registry.ModelRequiredError: Row(400, param="model"),
        registry.VirtualNameError: Row(400, param="model"),
        # 5 s: somebody else may be loading one.
        registry.NothingLoadedError: Row(503, SERVER, param="model", retry_after=5.0),
        registry.CapabilityMissingError: Row(400, param="model"),
        registry.ContextExceededError: Row(400, param="max_tokens"),
        registry.ModelUnusableError: Row(503, SERVER, param="model", permanent=True),
        registry.EngineMissingError: Row(503, SERVER, param="model", permanent=True),
        # Without a time nothing is going to happen by itself; with one, BACKOFF or FAILED allow a try then.
        supervisor.ModelFailedError: Row(503, SERVER, param="model", permanent=True),
        supervisor.ModelTooLargeError: Row(507, SERVER, param="model", permanent=True),
        supervisor.QueueFullError: Row(429, RATE_LIMIT, retry_after=5.0),
        supervisor.WaitTimeoutError: Row(503, SERVER, param="model", retry_after=10.0),
        # 5 s: about what a service manager's restart takes.
        supervisor.StoppingError: Row(503, SERVER, retry_after=5.0),
        supervisor.EndpointDownError: Row(503, SERVER, param="model", retry_after=5.0),
        # Ends the process with exit status 75 and never meets a request; the row keeps the table total.
        supervisor.AlreadyRunningError: Row(503, SERVER, permanent=True),
        supervisor.HandedOverError: Row(503, SERVER, retry_after=1.0),
        ControlBusyError: Row(503, SERVER, retry_after=1.0),
        BadQueryError: Row(400),
        BadConfigError: Row(400),
        BadDraftError: Row(400),
        NotOursError: Row(409, permanent=True),
        NoExplanationError: Row(404),
        NoLogError: Row(404),
    }
)
"""A class without a row of its own is a failing test, not a 500 in production."""

INTERNAL: Final = Refusal(
    500,
    "internal_error",
    "modelyard failed to handle this request. The daemon's log has the details under the request's id.",
    SERVER,
)
"""What an exception nobody expected becomes: its text may hold anything, so none of it is passed on."""


def refusal_for(error: BaseException) -> Refusal:
    """The refusal that *error* is answered with; total, never raises.

    An exception that carries a `Refusal` in its attribute `refusal` is taken at its word. A class of ours has
    a row. Anything else is `internal_error`, without its text.
    """
    carried = getattr(error, "refusal", None)
    if isinstance(carried, Refusal):
        return carried
    for cls in type(error).__mro__:
        row = TABLE.get(cls)
        if row is not None:
            return _refusal(error, row)
    return INTERNAL


def _refusal(error: BaseException, row: Row) -> Refusal:
    asked = getattr(error, "retry_after", None)
    retry_after = row.retry_after if asked is None else float(asked)
    hopeless = row.permanent if retry_after is None else retry_after > LONGEST_RETRY_AFTER
    return Refusal(
        status=row.status,
        code=str(getattr(error, "code", INTERNAL.code)),
        message=str(error),
        type=row.type,
        param=getattr(error, "param", None) or row.param,
        retry_after=retry_after,
        # A 4xx other than 409 and 429 is never retried by an SDK: the header would say nothing new.
        headers=(DO_NOT_RETRY,) if hopeless else (),
    )
