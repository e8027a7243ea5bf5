"""The console entry, and the only module an installed modelyard imports under its own name.

In a checkout the packages `router`, `supervisor`, `registry`, `config` and `cli` lie beside this folder; in a
wheel they lie under `modelyard/_root/` so that we never overwrite another distribution's `supervisor` or
`config` (docs/adr/0001-literal-packages-private-wheel-root.md).
"""

from __future__ import annotations

import sys
from pathlib import Path


def add_root() -> Path:
    """Put the folder that holds our packages first on `sys.path` and return it."""
    here = Path(__file__).resolve().parent
    installed = here / "_root"
    root = installed if installed.is_dir() else here.parent
    # First, so that another distribution's `supervisor` or `config` cannot win.
    if sys.path[:1] != [str(root)]:
        sys.path.insert(0, str(root))
    return root


def main() -> int:
    """Run the `modelyard` command line; returns the exit status."""
    add_root()
    from cli.main import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
