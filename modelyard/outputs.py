"""JSON schemas of what each command prints with `--json`: docs/reference/cli.schema.json.

`python -m modelyard.outputs` rewrites the file; `--check` changes nothing and exits 1 when it is stale. It is
made from the types that the commands and the daemon answer with. Keys may be added in later versions; none is
renamed or changes its unit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cli.configuration import ConfigChecked, ConfigShown
from cli.doctor import DoctorReport
from cli.engines import EngineEntry
from cli.generate import Generated
from cli.inspecting import Inspected
from cli.keys import KeyAdded, KeyList, KeyRevoked
from cli.logs import LogLine
from cli.service import ServiceChange, UnitText
from cli.service_host import ServiceState
from cli.version import Versions
from config.generated import refresh
from router.control.configuration import ConfigApplied, ConfigPlan
from router.control.dossier import ModelDossier
from router.control.explain import Explained
from router.control.manage import LogTail
from router.control.models import ModelList
from router.control.restart import Restarted
from router.control.schemas import components, schemas
from router.control.status import ModelStatus, Status

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.schema.json"


class Each:
    """A command prints a list of these."""

    def __init__(self, shape: type) -> None:
        self.shape = shape


OUTPUTS: Final[Mapping[str, type | Each]] = {
    "ps": Each(ModelStatus),
    "models": ModelList,
    "models show": ModelDossier,
    "models inspect": Inspected,
    "load": ModelStatus,
    "unload": ModelStatus,
    "pin": ModelStatus,
    "unpin": ModelStatus,
    "status": Status,
    "restart": Restarted,
    "explain": Explained,
    "logs": LogTail,
    "logs --follow": LogLine,
    "generate": Generated,
    "engine list": Each(EngineEntry),
    "engine install": EngineEntry,
    "engine upgrade": Each(EngineEntry),
    "engine remove": EngineEntry,
    "engine path": EngineEntry,
    "service install": ServiceChange,
    "service install --print": Each(UnitText),
    "service uninstall": ServiceChange,
    "service status": ServiceState,
    "doctor": DoctorReport,
    "config check": ConfigChecked,
    "config show": ConfigShown,
    "config plan": ConfigPlan,
    "config apply": ConfigApplied,
    "key add": KeyAdded,
    "key list": KeyList,
    "key revoke": KeyRevoked,
    "version": Versions,
}
"""Command to what it prints. Commands that follow (`status --watch`, `logs --follow`) print one per line."""

_REFERENCE: Final = "#/$defs/{name}"


def document() -> dict[str, Any]:
    """One schema for all: the property `ps` is what `modelyard ps --json` prints, and so on."""
    ours = [shape for shape in map(_shape, OUTPUTS.values()) if shape.__module__.startswith("cli.")]
    shapes = {**components(_REFERENCE), **schemas(ours, _REFERENCE)}
    wanted = _reachable(shapes, {_shape(output).__name__ for output in OUTPUTS.values()})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What modelyard's commands print with --json, by command",
        "type": "object",
        "properties": {command: _schema(output) for command, output in OUTPUTS.items()},
        "$defs": {name: shapes[name] for name in sorted(wanted)},
    }


def _shape(output: type | Each) -> type:
    return output.shape if isinstance(output, Each) else output


def _schema(output: type | Each) -> dict[str, Any]:
    reference = {"$ref": _REFERENCE.format(name=_shape(output).__name__)}
    return {"type": "array", "items": reference} if isinstance(output, Each) else reference


def _reachable(shapes: Mapping[str, Any], names: set[str]) -> set[str]:
    """*names*, and whatever they refer to, all the way down."""
    found: set[str] = set()
    while names:
        name = names.pop()
        found.add(name)
        said = json.dumps(shapes[name])
        names |= {other for other in shapes if f'"{_REFERENCE.format(name=other)}"' in said} - found
    return found


def text() -> str:
    """The file's content."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Rewrite the file, or with `--check` say whether it is fresh. Returns the exit status."""
    return refresh(PAGE, text(), arguments, source="what the commands print", target="reference")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
