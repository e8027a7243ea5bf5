"""`python -m tests.fuzz.harness TARGET FOLDER [libFuzzer's options]`: one target under atheris.

FOLDER is where inputs come from and new ones go to; without a bound (`-max_total_time=60`) it runs until it
finds something. What it found lies in a file whose name it prints.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["router", "tests.fuzz.references", "h11", "python_multipart"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz the target that is named first."""
    name, folder, *options = sys.argv[1:]
    target = TARGETS[name]
    words = Path(__file__).with_name(f"{name}.dict")
    settings = (f"-max_len={target.longest}", f"-dict={words}")
    # libFuzzer merges in a child, which it starts by its first word, through a shell.
    again = shlex.join((sys.executable, "-m", "tests.fuzz.harness", name))
    atheris.Setup([again, folder, *settings, *options], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
