"""`python -I -S …/supervisor/shim`: makes this package, and nothing installed, importable."""

import os
import sys

# The interpreter put this folder first, whose modules are called `output` and `tree`; our root goes last, so
# that nothing of ours can shadow the standard library.
sys.path[:1] = []
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from supervisor.shim.entry import main  # noqa: E402 - needs the path above

if __name__ == "__main__":
    sys.exit(main())
