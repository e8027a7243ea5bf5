"""`run` plays a scenario in a fresh world, on uvloop and on the standard library's loop."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from tests.support.playing import LOOPS, player
from tests.support.wire import Run


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return player(uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop)
