"""The facts of models that a page gives with their sources are those that the table of families has."""

from __future__ import annotations

import re
from typing import Final

import pytest

from registry.families import load_families
from registry.names import parse_name
from tests.support.running_daemon import ROOT

PAGE: Final = (ROOT / "docs" / "explanation" / "how-models-are-known.md").read_text(encoding="utf-8")
ROW: Final = re.compile(
    r"^\| `([^`]+)` \| (context|quantization|active) \| (\S+) \|.*\| ([^|]+) \|$", re.MULTILINE
)


@pytest.mark.parametrize(("name", "fact", "value", "source"), ROW.findall(PAGE))
def test_a_fact_on_the_page_is_what_the_name_gives(name: str, fact: str, value: str, source: str) -> None:
    facts = parse_name(name, load_families())
    active = facts.active_parameters
    known = {
        "context": facts.context,
        "quantization": facts.quantization,
        "active": None if active is None else active / 1e9,
    }[fact]
    assert (str(known) if known is not None else "unknown") == value
    assert source.strip()


def test_every_row_of_the_page_is_read() -> None:
    of_a_model = re.findall(r"^\| `[^`]+/[^`]+` \|", PAGE, re.MULTILINE)
    assert len(ROW.findall(PAGE)) == len(of_a_model) > 20
