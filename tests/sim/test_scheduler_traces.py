"""The eight traces: the files are what was made, and our scheduler meets its goals on them."""

from __future__ import annotations

import pytest

from bench.scheduler.report import BEGIN, DOCUMENT, END, PICTURE, goals, measured, picture, table
from bench.scheduler.traces import MADE, load_all, make


def test_the_traces_are_those_that_were_made_in_this_order() -> None:
    made = {name: make(name, seed) for seed, name in enumerate(MADE, 1)}
    assert {trace.name: trace for trace in load_all()} == made


@pytest.mark.simulation
@pytest.mark.timeout(300)
def test_our_scheduler_meets_its_goals_and_the_document_says_what_was_measured() -> None:
    results = measured()
    assert len(results) == 8
    assert [text for met, text in goals(results) if not met] == []
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0].strip() == table(results)
    assert PICTURE.read_text(encoding="utf-8") == picture(results)
