"""Every case names what it stands for, and there are enough of them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conformance import test_engine_answers as answers
from tests.conformance.requests import REFUSED, TAKEN
from tests.conformance.test_relay_matrix import ROWS

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "front.md"
RULE = re.compile(r"RFC (?:3986|8259|8297|9110|9112|9113) \d+(?:\.\d+)*|front: (?P<row>[a-z]+)")
RULES = [
    *(case.rule for case in (*REFUSED.values(), *TAKEN.values())),
    *(rule for table in (answers.REFUSED, answers.HARD) for rule, _ in table.values()),
    *(rule for rule, *_ in answers.PASSED.values()),
    *(rule for table in (answers.EMPTY, answers.NOT_KEPT) for rule, _ in table.values()),
]


def test_every_case_names_a_section_or_a_row() -> None:
    rows = {
        line[3:].lower() for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("## ")
    }
    for rule in RULES:
        match = RULE.fullmatch(rule)
        assert match, rule
        assert match["row"] is None or match["row"] in rows, rule


def test_there_are_at_least_150_cases_beside_the_relay_matrix() -> None:
    assert len(RULES) >= 150
    assert len(ROWS) == 5 * 3 * 2 * 2 * 3
