"""What holds for every ring."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """Leave what was collected out of the garbage collector's rounds.

    Thousands of tests and their parameters live until the end; looking through them again and again was a
    tenth of the time of rings 1 to 3.
    """
    gc.collect()
    gc.freeze()
