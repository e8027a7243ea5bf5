"""Ring 4: real processes. Nothing may be left behind, whatever a test did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.trees import clean_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short-pathed folder that must be free of processes afterwards."""
    with clean_folder() as path:
        yield path
