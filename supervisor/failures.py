"""Why an incarnation ended, in words: from what the check and the engine said. Pure."""

from __future__ import annotations

from registry.engine import Diagnosis, ModelId
from supervisor.errors import ModelFailedError
from supervisor.holding import Holding
from supervisor.lifecycle import State
from supervisor.policy import Policy
from supervisor.ports import ExitReport
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


class Setbacks:
    """What went wrong with an instance's incarnations, and whether another try at once may help."""

    __slots__ = ("_code", "_most_ports", "_ports_tried", "blamed", "last", "report", "retries")

    def __init__(self, policy: Policy) -> None:
        self.last: FailureView | None = None
        self.report = ExitReport(code=None)
        """How this incarnation ended."""
        self.blamed = ""
        """What its readiness check has given up for."""
        self._code = ""
        self.retries = False
        """Only its port or some memory was taken: those who wait should go on waiting."""
        self._ports_tried = 0
        self._most_ports = policy.port_retries

    def begin(self) -> None:
        """The next incarnation."""
        self.report, self.blamed, self._code, self.retries = ExitReport(code=None), "", "", False

    def settle(self) -> None:
        """It has come up, or has failed for good: the next time it may try as many ports again."""
        self._ports_tried = 0

    def blame(self, reason: str, code: str) -> None:
        """Its readiness check gives up for *reason*."""
        self.blamed, self._code = reason, code

    def cause(self, found: Diagnosis, *, spoke: bool) -> Diagnosis:
        """What to say of it, where its last words mean *found*."""
        return blamed(found, self.blamed, self._code, spoke=spoke) if self.blamed else found

    def remember(self, failure: FailureView, holding: Holding, *, proved: bool) -> None:
        """It is over; *proved*: after it had served."""
        self.last = failure
        if failure.code == "port_taken" and self._ports_tried < self._most_ports and not proved:
            # A free port is a guess, and somebody else took it: another one at once, a few times.
            self._ports_tried += 1
            self.retries = True
        if failure.code == "out_of_memory" and not proved and holding.wants_more():
            # Once more, with more room: others are stopped for it, and what it takes then is learned.
            self.retries = True
