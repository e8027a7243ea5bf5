"""What fuzzing has found is read right ever after; and the targets do find what is wrong."""

from __future__ import annotations

import pytest

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_inputs_are_read_right(name: str) -> None:
    inputs = corpus.kept(name)
    assert 10 <= len(inputs) <= corpus.MOST
    for data in inputs:
        TARGETS[name].check(data)
