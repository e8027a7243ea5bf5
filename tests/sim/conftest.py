"""The long runs of the simulator are asked for by name: `pytest -m simulation`, which `make test` does."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave them out unless the marker expression names them."""
    if "simulation" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("simulation") is not None]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
