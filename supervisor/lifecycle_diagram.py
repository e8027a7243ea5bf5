"""Draws `lifecycle.TRANSITIONS` as a mermaid diagram and a table, into docs/explanation/lifecycle.md.

`python -m supervisor.lifecycle_diagram` rewrites what stands between the two marks in that page;
`--check` changes nothing and exits 1 when the page is not what the table says.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from config.generated import refresh, replaced
from supervisor.lifecycle import TRANSITIONS, WITH_TREE, Event, State, Step

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "lifecycle.md"

Table = Mapping[State, Mapping[Event, Step]]


def diagram(table: Table = TRANSITIONS) -> str:
    """A mermaid state diagram with one arrow per change of state; events that change nothing are left out."""
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR", f"    [*] --> {State.STOPPED.name}"]
    for state, row in table.items():
        events_by_target: dict[State, list[str]] = {}
        for event, step in row.items():
            if step.state is not state:
                events_by_target.setdefault(step.state, []).append(event.value)
        lines += [
            f"    {state.name} --> {target.name}: {', '.join(events)}"
            for target, events in events_by_target.items()
        ]
    lines += ["    classDef tree stroke-width:3px", f"    class {_names(WITH_TREE)} tree", "```"]
    return "\n".join(lines)


def rows(table: Table = TRANSITIONS) -> str:
    """The whole table in Markdown, one line per legal event."""
    lines = ["| state | event | next state | commands, in order |", "| --- | --- | --- | --- |"]
    for state, row in table.items():
        for event, step in row.items():
            commands = ", ".join(f"`{command.value}`" for command in step.commands) or "none"
            following = "stays" if step.state is state else step.state.name
            lines.append(f"| {state.name} | `{event.value}` | {following} | {commands} |")
    return "\n".join(lines)


def page_with(current: str, table: Table = TRANSITIONS) -> str:
    """*current* with the part between the marks drawn anew. Raises ValueError when a mark is missing."""
    return replaced(current, f"{diagram(table)}\n\n{rows(table)}", "diagrams")


def _names(states: frozenset[State]) -> str:
    return ",".join(state.name for state in State if state in states)


def main(arguments: Sequence[str]) -> int:
    """Rewrite the page, or with `--check` say whether it is fresh. Returns the exit status."""
    wanted = page_with(PAGE.read_text(encoding="utf-8"))
    return refresh(PAGE, wanted, arguments, source="supervisor/lifecycle.py", target="diagrams")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
