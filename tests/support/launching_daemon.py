"""A daemon reduced to its launcher: `python -m tests.support.launching_daemon FOLDER ADOPT_WITHIN KNOBS…`.

Launches one scripted engine, prints its record as JSON, and lives until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.support.trees import Yard, fake_spec


async def live(folder: Path, adopt_within: float, knobs: list[str]) -> None:
    """Launch, tell, and wait for ever."""
    yard = Yard(folder, adopt_within=adopt_within)
    _, child = await yard.launch(fake_spec(*knobs))
    print(json.dumps(child.record.to_json()), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
