"""`run` plays a scenario in a fresh world; nothing may raise in the front, hang, or be left held."""

from __future__ import annotations

import pytest
import uvloop

from tests.support.playing import player
from tests.support.wire import Run


@pytest.fixture
def run() -> Run:
    # On one loop: that both loops carry the front alike is what tests/wire is for.
    return player(uvloop.new_event_loop)
