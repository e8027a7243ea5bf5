"""The table of refusals is total, and says to SDKs what they act on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from registry.errors import CapabilityMissingError, EngineMissingError, RegistryError
from router.errors import DO_NOT_RETRY, TABLE, ControlError, refusal_for
from router.ports import Refusal
from supervisor.errors import ModelFailedError, ModelTooLargeError, QueueFullError, SupervisorError


def _below(cls: type[Exception]) -> Iterator[type[Exception]]:
    for sub in cls.__subclasses__():
        # Tests make throw-away subclasses; the product's are what must be in the table.
        if not sub.__module__.startswith("tests"):
            yield sub
        yield from _below(sub)


FAMILY = sorted({c for base in (RegistryError, SupervisorError, ControlError) for c in _below(base)}, key=str)


@pytest.mark.parametrize("cls", FAMILY, ids=lambda c: c.__name__)
def test_every_error_class_has_a_row_of_its_own(cls: type[Exception]) -> None:
    assert cls in TABLE
    refusal = refusal_for(cls("what, where, what to do"))
    assert refusal.code == cls.code  # type: ignore[attr-defined]  # every base of ours declares it
    assert refusal.message == "what, where, what to do"
    assert 400 <= refusal.status < 600
    assert refusal.status != 500


def test_the_table_has_no_row_for_a_class_that_is_gone() -> None:
    assert set(TABLE) == set(FAMILY)


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in TABLE]  # type: ignore[attr-defined]  # every base of ours declares it
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("cls", FAMILY, ids=lambda c: c.__name__)
def test_a_refusal_that_sdks_would_retry_says_when_or_not_to(cls: type[Exception]) -> None:
    refusal = refusal_for(cls("x"))
    if refusal.status in (408, 409, 429) or refusal.status >= 500:
        assert (refusal.retry_after is not None) != (DO_NOT_RETRY in refusal.headers)


def test_the_installing_command_reaches_the_client() -> None:
    refusal = refusal_for(
        EngineMissingError("mlx-lm is not installed: run `modelyard engine install mlx-lm`")
    )
    assert (refusal.status, refusal.code) == (503, "engine_not_installed")
    assert "modelyard engine install mlx-lm" in refusal.message


def test_a_crash_with_a_time_may_be_retried_then() -> None:
    refusal = refusal_for(ModelFailedError("exited 1", retry_after=5.0))
    assert (refusal.status, refusal.retry_after, refusal.headers) == (503, 5.0, ())


def test_a_time_no_sdk_would_wait_is_said_but_not_waited_for() -> None:
    refusal = refusal_for(ModelFailedError("crash loop", retry_after=300.0))
    assert refusal.retry_after == 300.0
    assert refusal.headers == (DO_NOT_RETRY,)


def test_too_large_is_final_and_full_is_not() -> None:
    assert refusal_for(ModelTooLargeError("70 GB of 24 GB")).headers == (DO_NOT_RETRY,)
    full = refusal_for(QueueFullError("256 wait", retry_after=2.0))
    assert (full.status, full.retry_after, full.headers) == (429, 2.0, ())


def test_the_model_is_the_parameter_at_fault() -> None:
    assert refusal_for(CapabilityMissingError("no")).param == "model"


def test_an_unknown_exception_leaks_nothing() -> None:
    refusal = refusal_for(RuntimeError("password=hunter2 at /home/alice"))
    assert (refusal.status, refusal.code) == (500, "internal_error")
    assert "hunter2" not in refusal.message


def test_an_exception_may_carry_its_refusal() -> None:
    carried = Refusal(413, "body_too_large", "64 MiB is the limit")

    class TooLargeError(Exception):
        refusal = carried

    assert refusal_for(TooLargeError()) is carried


def test_a_subclass_nobody_listed_is_answered_as_its_parent() -> None:
    class OddEngineError(EngineMissingError):
        pass

    assert refusal_for(OddEngineError("x")).status == 503
