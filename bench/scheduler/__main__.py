"""`python -m bench.scheduler`: our scheduler and three others on the eight traces.

Without an argument: prints the table and whether the goals are met. `write` also writes the table into
docs/explanation/scheduling.md and draws docs/images/scheduling.svg; `make-traces` makes the traces anew from
their seeds.
"""

from __future__ import annotations

import sys

from bench.scheduler.report import goals, measured, table, write_document
from bench.scheduler.traces import MADE, make, write


def main(words: list[str]) -> int:
    """Exit status 1 when a goal is missed."""
    if words == ["make-traces"]:
        for number, name in enumerate(MADE, 1):
            write(make(name, seed=number))
        return 0
    if words not in ([], ["write"]):
        print(__doc__, file=sys.stderr)
        return 2
    results = measured()
    print(table(results))
    if words:
        write_document(results)
    missed = 0
    for met, text in goals(results):
        print(f"{'met   ' if met else 'MISSED'} {text}")
        missed += not met
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
