"""The comparison as a table, as goals that are met or missed, and as the picture in the documents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from bench.scheduler.baselines import run_baselines
from bench.scheduler.ours import run_ours
from bench.scheduler.outcome import Outcome
from bench.scheduler.traces import Trace, load_all

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/explanation/scheduling.md"
PICTURE = ROOT / "docs/images/scheduling.svg"
BEGIN, END = "<!-- the table: make bench-scheduler-write -->", "<!-- the table ends -->"

AT_MOST = 1.1
"""Our mean wait, as a multiple of that of the best that starves nobody."""
LOWER_ON = 5
"""Traces on which it is to be lower."""

Results = list[tuple[Trace, list[Outcome]]]


def measured() -> Results:
    """Ours first, then the others, on each trace."""
    return [(trace, [run_ours(trace), *run_baselines(trace)]) for trace in load_all()]


def table(results: Results) -> str:
    """Markdown."""
    lines = [
        "| trace | scheduler | loads | seconds loading | mean wait | p99 | longest | past the bound |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for trace, outcomes in results:
        for number, o in enumerate(outcomes):
            name = f"**{trace.name}**" if number == 0 else ""
            lines.append(
                f"| {name} | {o.name} | {o.loads} | {o.loading:.0f} | {o.mean:.1f} | {o.p99:.1f} "
                f"| {o.longest:.1f} | {o.late} |"
            )
    return "\n".join(lines)


def goals(results: Results) -> Iterator[tuple[bool, str]]:
    """(met, in words) for each goal."""
    late = {trace.name: outcomes[0].late for trace, outcomes in results}
    yield (
        not any(late.values()),
        f"nobody waits past I5's bound with ours: {sum(late.values())} of all requests",
    )
    lower = []
    for trace, (ours, *others) in results:
        fair = [other.mean for other in others if not other.starves]
        best = min(fair, default=None)
        if best is None:
            yield True, f"{trace.name}: {ours.mean:.1f} s; all others leave somebody past the bound"
            best = min(other.mean for other in others)
        else:
            ratio = ours.mean / best
            yield ratio <= AT_MOST, f"{trace.name}: mean wait {ratio:.2f} x that of the best fair one"
        if ours.mean < best:
            lower.append(trace.name)
    yield len(lower) >= LOWER_ON, f"lower on {len(lower)} of {len(results)}: {', '.join(lower)}"


def write_document(results: Results) -> None:
    """The table between its marks, and the picture."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}", encoding="utf-8")
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(results), encoding="utf-8")


# -- the picture -----------------------------------------------------------------------------------

WIDTH, ROW, LEFT, PANEL, TOP = 1000, 74, 150, 400, 64
COLOURS = ("#0b6e4f", "#b8b8b8", "#8c8c8c", "#606060")
STYLE = (
    'font-family="system-ui, sans-serif" font-size="12" role="img" '
    'aria-label="Mean and longest wait of four schedulers on eight traces"'
)
LEAST, MOST = 0.5, 4000.0


def picture(results: Results) -> str:
    """SVG: per trace and scheduler the mean and the longest wait, on a logarithmic scale."""
    height = TOP + ROW * len(results) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {STYLE}>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, outcome in enumerate(results[0][1]):
        x = LEFT + number * 200
        parts.append(f'<rect x="{x}" y="10" width="12" height="12" fill="{COLOURS[number]}"/>')
        parts.append(f'<text x="{x + 18}" y="21">{outcome.name}</text>')
    for panel, title in enumerate(("mean wait, seconds", "longest wait, seconds")):
        parts += _axis(LEFT + panel * (PANEL + 30), title, height)
    for row, (trace, outcomes) in enumerate(results):
        top = TOP + row * ROW
        parts.append(f'<text x="{LEFT - 10}" y="{top + 30}" text-anchor="end">{trace.name}</text>')
        for number, outcome in enumerate(outcomes):
            y = top + number * 15
            parts += _bar(LEFT, y, outcome.mean, COLOURS[number], late=False)
            parts += _bar(LEFT + PANEL + 30, y, outcome.longest, COLOURS[number], late=outcome.starves)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axis(left: int, title: str, height: int) -> Iterator[str]:
    yield f'<text x="{left}" y="42" font-weight="600">{title}</text>'
    for tick in (1, 10, 100, 1000):
        x = left + _length(tick)
        yield f'<line x1="{x:.0f}" y1="{TOP - 6}" x2="{x:.0f}" y2="{height - 16}" stroke="#e4e4e4"/>'
        yield f'<text x="{x:.0f}" y="{TOP - 9}" text-anchor="middle" fill="#666" font-size="10">{tick}</text>'


def _bar(left: int, y: int, seconds: float, colour: str, *, late: bool) -> Iterator[str]:
    length = _length(seconds)
    yield f'<rect x="{left}" y="{y}" width="{length:.1f}" height="12" fill="{colour}"/>'
    note = f"{seconds:.1f}" + (" past the bound" if late else "")
    inside = length > PANEL - 120
    x, anchor, fill = (
        (left + length - 4, "end", "#ffffff") if inside else (left + length + 4, "start", "#222222")
    )
    yield f'<text x="{x:.1f}" y="{y + 10}" text-anchor="{anchor}" font-size="10" fill="{fill}">{note}</text>'


def _length(seconds: float) -> float:
    share = math.log(max(seconds, LEAST) / LEAST) / math.log(MOST / LEAST)
    return share * PANEL
