"""What engines really said before they ended, and what we make of it.

`last_words/` holds one file per case: a head (engine, exit status, the right code, a piece of the right
cause, where it comes from) and the tail of the log as the shim keeps it. `source: provoked` was produced by
making the real engine fail; the others have the shape of logs in the engines' sources and issues.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from config.vocabulary import EngineName
from registry.engine import Diagnosis
from registry.engine_choice import ENGINES
from registry.engines.causes import COMMON
from registry.engines.diagnosis import UNKNOWN

CORPUS = Path(__file__).with_name("last_words")
RIGHT = 0.9
"""The share that must be right. What is not is listed by name, so that it is seen."""
UNKNOWN_CODES = {"engine_failed", "engine_crashed"}


@dataclass(frozen=True)
class Case:
    """A file of the corpus."""

    name: str
    engine: EngineName
    exit_code: int | None
    code: str
    cause: str
    source: str
    tail: tuple[str, ...]

    def diagnosis(self) -> Diagnosis:
        """Ours."""
        return ENGINES[self.engine].diagnose(self.tail, self.exit_code)

    @property
    def is_right(self) -> bool:
        """Code and cause are what they should be."""
        found = self.diagnosis()
        return found.code == self.code and self.cause in found.cause


def read(path: Path) -> Case:
    """A case from its file."""
    head, _, tail = path.read_text().partition("\n---\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    code = None if fields["exit"] == "none" else int(fields["exit"])
    return Case(
        path.stem,
        EngineName(fields["engine"]),
        code,
        fields["code"],
        fields["cause"],
        fields["source"],
        tuple(tail.splitlines()),
    )


CASES = [read(path) for path in sorted(CORPUS.glob("*.txt"))]


def test_nine_of_ten_are_right() -> None:
    wrong = [f"{case.name}: {case.diagnosis()}" for case in CASES if not case.is_right]
    share = 1 - len(wrong) / len(CASES)
    provoked = sum(case.source == "provoked" for case in CASES)
    print(f"{share:.1%} of {len(CASES)} right, {provoked} of them provoked", *wrong, sep="\n  ")
    assert len(CASES) >= 60
    assert provoked >= 30
    assert share >= RIGHT


@pytest.mark.parametrize("case", [c for c in CASES if c.code in UNKNOWN_CODES], ids=lambda case: case.name)
def test_what_is_not_known_says_so(case: Case) -> None:
    assert case.diagnosis().remedy == UNKNOWN


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.code not in UNKNOWN_CODES], ids=lambda case: case.name
)
def test_what_is_known_has_a_remedy(case: Case) -> None:
    found = case.diagnosis()
    assert found.code == "port_taken" or found.remedy  # a port needs none: another one is tried
    assert "modelyard does not know" not in found.remedy


def test_every_common_rule_has_a_case() -> None:
    codes = {case.code for case in CASES}
    assert {rule.code for rule in COMMON} - codes == {"limit_reached"}
