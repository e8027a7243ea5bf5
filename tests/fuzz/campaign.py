"""`python -m tests.fuzz.campaign [--seconds N] [TARGET…]`: fuzz one target after another; `make fuzz`.

Each begins with the corpus that is kept and with what earlier campaigns have found, in `.fuzz/`. At its end
what is new there is made small and kept. Exits with 1 and the input's file where something was found.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS

WORK = Path(".fuzz")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="fuzz", description="fuzz what the front reads")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all")
    asked = parser.parse_args()
    for name in asked.targets or TARGETS:
        if name not in TARGETS:
            parser.error(f"no target {name!r}; there are {', '.join(TARGETS)}")
        print(f"== {name}, {asked.seconds} s", flush=True)
        if not _fuzz(name, asked.seconds):
            return 1
    return 0


def _fuzz(name: str, seconds: int) -> bool:
    """False: it found something."""
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    for data in corpus.kept(name):
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
    found = [f"-artifact_prefix={WORK}/found-{name}-", "-print_final_stats=1", "-verbosity=1"]
    if _harness(name, folder, f"-max_total_time={seconds}", *found) != 0:
        return False
    with tempfile.TemporaryDirectory() as small:
        if _harness(name, Path(small), "-merge=1", str(folder), "-verbosity=0") != 0:
            return False
        corpus.keep(name, (path.read_bytes() for path in Path(small).iterdir()))
    return True


def _harness(name: str, folder: Path, *options: str) -> int:
    command = [sys.executable, "-m", "tests.fuzz.harness", name, str(folder), *options]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
