"""A run's figures as the table and the picture of docs/explanation/performance.md."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.machine import Subject
from bench.verdict import Claim

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/explanation/performance.md"
PICTURE = ROOT / "docs/images/performance.svg"
BEGIN, END = "<!-- the figures: make bench-write -->", "<!-- the figures end -->"

OURS = "modelyard"
PANELS = (
    ("request_us", "CPU per request of 1 KB, µs", 1),
    ("event_us", "CPU per streamed event at 512 streams, µs", 1),
    ("big_ms", "CPU per body of 4 MB, ms", 2),
)
ROUTES = {
    "direct": "the engine's stand-in, nothing between",
    "nginx": "no",
    "haproxy": "no",
    "aiohttp": "yes, and nothing else",
    "sglang-router": "no",
    "vllm-router": "no",
    OURS: "yes; keys, leases, metrics, access log",
}
"""Whether it chooses by the model that a body names."""


def write(found: Sequence[Subject], claims: Sequence[Claim], notes: Sequence[str], *, rounds: int) -> None:
    """Put the figures between their marks, and draw the picture."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    when = f"{datetime.now(UTC):%Y-%m-%d}, {_processor()}, CPython {platform.python_version()}"
    lines = [
        f"{when}, {rounds} rounds; medians, and the range of the first column:", "", *_table(found), "",
        "![What a request, an event and a large body cost each of them](../images/performance.svg)", "",
        *_claims(claims), *(f"\nNote: {note}." for note in notes),
    ]  # fmt: skip
    DOCUMENT.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")
    PICTURE.write_text(picture(found), encoding="utf-8")


def _processor() -> str:
    try:
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in said.splitlines() if line.startswith("model name")]
    return f"{len(names)} cores ({names[0]})" if names else platform.machine()


def _median(subject: Subject, figure: str) -> float:
    return statistics.median(subject.figures[figure])


def _table(found: Sequence[Subject]) -> Iterator[str]:
    yield "| | routes by model | µs a request | | µs an event | MiB for 512 streams | ms for 4 MB |"
    yield "| --- | --- | ---: | --- | ---: | ---: | ---: |"
    for subject in found:
        name = f"**{subject.name}**" if subject.name == OURS else subject.name
        us = subject.figures["request_us"]
        yield (
            f"| {name} | {ROUTES[subject.name]} | {_median(subject, 'request_us'):.1f} "
            f"| {min(us):.1f}–{max(us):.1f} | {_median(subject, 'event_us'):.1f} "  # noqa: RUF001  a range
            f"| {_median(subject, 'streams_mib'):.1f} | {_median(subject, 'big_ms'):.2f} |"
        )


def _claims(claims: Sequence[Claim]) -> Iterator[str]:
    yield "| what we hold ourselves to | limit | measured | |"
    yield "| --- | ---: | ---: | --- |"
    for claim in claims:
        value = "not measured" if claim.value is None else f"{claim.value:.2f}"
        yield f"| {claim.what} | {claim.limit:.3g} | {value} | {'met' if claim.met else 'missed'} |"


# -- the picture -----------------------------------------------------------------------------------

WIDTH, ROW, LEFT, BAR, GAP = 760, 20, 120, 560, 34
STYLE = (
    'font-family="system-ui, sans-serif" font-size="12" role="img" '
    'aria-label="CPU that a request, a streamed event and a large body cost each proxy"'
)


def picture(found: Sequence[Subject]) -> str:
    """SVG: bars, one panel for each figure."""
    shown = [subject for subject in found if subject.name != "direct"]
    panel = GAP + ROW * len(shown) + 10
    height = panel * len(PANELS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {STYLE}>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (figure, title, digits) in enumerate(PANELS):
        parts += _panel(shown, figure, title, digits, top=number * panel)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(shown: Sequence[Subject], figure: str, title: str, digits: int, *, top: int) -> Iterator[str]:
    values = {subject.name: _median(subject, figure) for subject in shown}
    most = max(values.values())
    yield f'<text x="{LEFT}" y="{top + 24}" font-weight="600">{title}</text>'
    for row, (name, value) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        y = top + GAP + row * ROW
        length = BAR * value / most
        colour, weight = ("#0b6e4f", "600") if name == OURS else ("#b8b8b8", "400")
        yield f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end" font-weight="{weight}">{name}</text>'
        yield f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="15" fill="{colour}"/>'
        yield (
            f'<text x="{LEFT + length + 5:.1f}" y="{y + 12}" font-size="11" fill="#222222">'
            f"{value:.{digits}f}</text>"
        )
