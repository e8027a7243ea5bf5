"""`modelyard doctor`: what is wrong with this machine for this configuration, and how to mend it."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypedDict

import click

from cli import terminal
from cli.checks import Finding, Level, examine
from cli.errors import Status
from cli.facts import Facts
from cli.options import json_option
from cli.readings import read_facts
from cli.terminal import Column

COLUMNS: Final = (Column("CHECK"), Column("LEVEL"), Column("FINDING", wide=True))
REMEDY: Final = Column("WHAT TO DO", wide=True)


class DoctorGpu(TypedDict):
    """An NVIDIA GPU."""

    id: str
    total_bytes: int


class DoctorMachine(TypedDict):
    """The machine, as far as the choice of engines goes."""

    system: str
    arch: str
    ram_bytes: int
    gpus: list[DoctorGpu]


class DoctorFinding(TypedDict):
    """One thing that was looked at."""

    check: str
    level: str
    """`ok`, `warn` or `fail`."""
    what: str
    remedy: str
    """What to do; empty when there is nothing to do."""


class DoctorReport(TypedDict):
    """What `doctor --json` prints."""

    version: str
    healthy: bool
    """Nothing fails; warnings do not count."""
    counts: dict[str, int]
    """Findings by level."""
    config: str | None
    """null: no file, the defaults."""
    machine: DoctorMachine
    findings: list[DoctorFinding]
    """In the order in which one would mend them."""


@click.command()
@click.option(
    "--config", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The file."
)
@json_option
def doctor(file: Path | None, as_json: bool) -> int:
    """Say what is wrong with this machine for this configuration, and how to mend it.

    Changes nothing and needs no daemon. Exit status 0 when nothing fails, else 1; warnings do not count.
    """
    with terminal.status_line("looking around"):
        facts = read_facts(file, os.environ, Path.cwd())
        findings = examine(facts)
    if as_json:
        terminal.print_json(report(facts, findings))
    else:
        print_findings(findings, is_terminal=sys.stdout.isatty())
        terminal.note(summary(findings))
    return Status.FAILURE if any(one.level is Level.FAIL for one in findings) else Status.OK


def print_findings(findings: Sequence[Finding], *, is_terminal: bool) -> None:
    """A row per finding. What to do stands below it for people, and in a column of its own for grep."""
    if is_terminal:
        rows = [(one.check, one.level.value, _with_remedy(one)) for one in findings]
        terminal.print_table(COLUMNS, rows)
    else:
        columns = (*COLUMNS, REMEDY)
        terminal.print_table(
            columns, [(one.check, one.level.value, one.what, one.remedy) for one in findings]
        )


def _with_remedy(finding: Finding) -> str:
    return f"{finding.what}\n→ {finding.remedy}" if finding.remedy else finding.what


def summary(findings: Sequence[Finding]) -> str:
    """The findings in one line."""
    counts = Counter(one.level for one in findings)
    if not counts[Level.FAIL] and not counts[Level.WARN]:
        return "nothing is wrong"
    return f"{counts[Level.FAIL]} to mend, {counts[Level.WARN]} to know about, {counts[Level.OK]} fine"


def report(facts: Facts, findings: Sequence[Finding]) -> DoctorReport:
    """The findings for programs."""
    counts = Counter(one.level for one in findings)
    machine = facts.machine
    return DoctorReport(
        version=facts.version,
        healthy=not counts[Level.FAIL],
        counts={level.value: counts[level] for level in Level},
        config=None if facts.config_path is None else str(facts.config_path),
        machine=DoctorMachine(
            system=machine.system,
            arch=machine.arch,
            ram_bytes=machine.ram_bytes,
            gpus=[DoctorGpu(id=device, total_bytes=total) for device, total in machine.gpus],
        ),
        findings=[
            DoctorFinding(check=one.check, level=one.level.value, what=one.what, remedy=one.remedy)
            for one in findings
        ],
    )
