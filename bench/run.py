"""`make bench`: what the front costs, beside nothing, nginx, haproxy, a plain aiohttp proxy and two Rust
routers, in one run.

The figure is CPU: microseconds of the proxy's process tree per request (and per streamed event), which
other load on the machine disturbs far less than latency. The proxy under test has a core of its own, engine
and load generator share another; every proxy takes its turn in every round. nginx and haproxy route nothing
by model: they are the floor the kernel sets, not peers. Needs a C compiler; what is not installed is left
out, with a note.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import page, scenarios
from bench.machine import Machine, Subject
from bench.subjects import check_answer, install_routers, subjects
from bench.verdict import Claim, claims

WARM_UP_SECONDS = 0.5
COLUMNS = (
    ("request_us", "us/request", 1), ("rate", "req/s", 0), ("p50_ms", "p50 ms", 2),
    ("event_us", "us/event", 1), ("streams_mib", "MiB/512", 1), ("big_ms", "ms/4 MB", 2),
)  # fmt: skip
ALONE = (
    ("stalled_mib", "MiB a stalled reader costs"),
    ("cold_first_ms", "ms from a model's readiness to its first request"),
    ("cold_mib", "MiB that 1,000 waiting requests cost"),
    ("lag_p95_ms", "ms of the loop's lag, p95 (upper bound), while control is busy"),
    ("polls", "answers of /api/status meanwhile"),
)


def measure(machine: Machine, load: Path, found: Sequence[Subject], options: argparse.Namespace) -> None:
    """All rounds, and then what concerns the daemon alone."""
    for subject in found:
        check_answer(subject)
        machine.load(load, subject.port, clients=options.clients, seconds=WARM_UP_SECONDS, mode=["json"])
    for turn in range(options.rounds):
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr, flush=True)
        for subject in found:
            scenarios.requests(machine, load, subject, clients=options.clients, seconds=options.seconds)
        for subject in found:
            scenarios.streams(machine, load, subject)
        for subject in found:
            scenarios.pictures(machine, load, subject, seconds=options.seconds)
    ours = found[-1]
    print("the daemon alone", file=sys.stderr, flush=True)
    scenarios.cold_path(machine, load, ours)
    scenarios.stalled_reader(ours)
    scenarios.repositories(machine.folder / "repositories")
    scenarios.busy_control(machine, ours)


def table(found: Sequence[Subject], notes: Sequence[str]) -> str:
    """What was measured, for people: medians, with the range of the first column."""
    lines = [f"{'':14}" + "".join(f"{title:>12}" for _, title, _ in COLUMNS) + f"{'errors':>8}"]
    for subject in found:
        cells = "".join(
            f"{statistics.median(subject.figures[name]):12.{digits}f}" for name, _, digits in COLUMNS
        )
        us = subject.figures["request_us"]
        lines.append(f"{subject.name:14}{cells}{subject.errors:8}   ({min(us):.1f}-{max(us):.1f} us/request)")
    for name, title in ALONE:
        if name in found[-1].figures:
            lines.append(f"{found[-1].figures[name][0]:10.1f}  {title}")
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def judged(found: Sequence[Claim]) -> str:
    """The claims, one a line."""
    return "\n".join(f"{'met ' if claim.met else 'NOT '} {claim}" for claim in found)


def main() -> int:
    """Run, print, and with --check judge."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of load per run")
    parser.add_argument("--clients", type=int, default=64, help="keep-alive connections")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="subjects, besides the daemon")
    parser.add_argument("--install", action="store_true", help="install the two routers first, apart")
    parser.add_argument(
        "--write", action="store_true", help="put the figures into docs/explanation/performance.md"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit 1 if a claim is not met, or cannot be judged"
    )
    options = parser.parse_args()
    if options.install:
        install_routers()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        machine = Machine(Path(folder))
        try:
            load, engine = machine.compile("load"), machine.compile("engine")
            wanted = options.only
            found = [
                subject
                for subject in subjects(machine, engine)
                if wanted is None or subject.name in (*wanted, "modelyard")
            ]
            measure(machine, load, found, options)
            notes = machine.notes
        finally:
            machine.close()
    print(table(found, notes))
    verdict = claims(found)
    print(judged(verdict))
    if options.write:
        page.write(found, verdict, notes, rounds=options.rounds)
    return 1 if options.check and not all(claim.met for claim in verdict) else 0


if __name__ == "__main__":
    sys.exit(main())
