"""`keep_alive` as clients of Ollama write it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.keep_alive import seconds_of
from router.refused import RefusedError
from router.request import read_json


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(300, 300.0), (1.5, 1.5), (0, 0.0), (-1, math.inf), (-0.5, math.inf), ("5m", 300.0), ("1h30m", 5400.0),
     ("500ms", 0.5), ("0", 0.0), ("0s", 0.0),
     ("-1", math.inf), ("-1m", math.inf), ("90", 90.0), (None, None)],
)  # fmt: skip
def test_seconds_durations_and_for_ever(said: object, seconds: float | None) -> None:
    assert seconds_of(json.dumps(said).encode()) == seconds


@pytest.mark.parametrize(
    "said", ["soon", "", "-", "--1", "5 minutes", "inf", "nan", "-nan", True, [], {}, [5]]
)
def test_what_is_no_duration_is_refused_by_name(said: object) -> None:
    with pytest.raises(RefusedError) as caught:
        seconds_of(json.dumps(said).encode())
    refusal = caught.value.refusal
    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_keep_alive", "keep_alive")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_no_value_does_anything_else(value: object) -> None:
    try:
        seconds = seconds_of(json.dumps(value).encode())
    except RefusedError:
        return
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    "body",
    [b'{"model":"m","keep_alive":"5m","messages":[]}', b'{"messages":[],"keep_alive" : "5m" ,"model":"m"}',
     b'{"model":"m","keep\\u005falive":"5m"}', b'{"model":"m","keep_alive":1,"keep_alive":"5m"}',
     b'{"model":"m","x":"\\u00e9","keep_alive":"5m"}',
     b'{"keep_alive":"5m","model":"m","x":"' + b"y" * 70_000 + b'"}'],
)  # fmt: skip
def test_it_is_found_wherever_it_stands(body: bytes) -> None:
    assert read_json(body).keep_alive == b'"5m"'


def test_deeper_ones_and_none_are_nothing() -> None:
    assert read_json(b'{"model":"m","metadata":{"keep_alive":1}}').keep_alive is None
    assert read_json(b'{"model":"m"}').keep_alive is None
