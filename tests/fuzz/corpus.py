"""The inputs that are kept: one file per target, one input per line, as Python writes bytes."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).with_name("corpus")
LONGEST: Final = 1024
"""Bytes of an input that is kept."""
MOST: Final = 150
"""Inputs kept of one target: all are replayed whenever the tests run."""


def kept(name: str) -> list[bytes]:
    """The inputs kept for target *name*."""
    path = FOLDER / f"{name}.txt"
    return [ast.literal_eval(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """Keep *inputs*, the shortest of them where there are too many."""
    short = {data for data in inputs if len(data) <= LONGEST}
    chosen = sorted(short, key=lambda data: (len(data), data))[:MOST]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.txt").write_text("".join(f"{data!r}\n" for data in chosen))
