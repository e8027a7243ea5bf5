"""JSON schemas of what control answers, made from the types it answers with. Pure.

A key's description is the docstring under it, so that there is one place to write it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from router.control.configuration import ConfigApplied, ConfigPlan
from router.control.deps import FrontStats
from router.control.dossier import ModelDetail, ModelDossier
from router.control.events import Event
from router.control.explain import Explained
from router.control.feed import Change
from router.control.manage import LogTail, ModelStatuses
from router.control.models import ModelEntry, ModelList
from router.control.restart import Restarted
from router.control.status import ModelStatus, Status
from router.metrics import RequestTotals
from supervisor.view import DeviceView, InstanceView

SHAPES: Final = (
    Status, Change, ModelStatus, ModelStatuses, ModelDetail, Event, LogTail, Explained, Restarted,
    ModelEntry, ModelDossier, ModelList, ConfigPlan, ConfigApplied,
)  # fmt: skip
"""What is answered as a whole."""

_PARTS: Final = (DeviceView, InstanceView, FrontStats, RequestTotals)

_INSIDE: Final[Mapping[str, type]] = {
    "devices": DeviceView,
    "recent_events": Event,
    "front": FrontStats,
    "requests": RequestTotals,
}
"""Keys of a status that hold plain dicts, for speed, and what these are made from."""


def schemas(types: Iterable[type], template: str) -> dict[str, Any]:
    """A schema per type, and per type within it, by name; *template* makes a reference of a `{name}`."""
    wanted = tuple(types)
    _, found = msgspec.json.schema_components(wanted, ref_template=template)
    for cls in _all(wanted):
        if cls.__name__ in found:
            _describe(found[cls.__name__], cls)
    return found


def components(template: str = "#/components/schemas/{name}") -> dict[str, Any]:
    """The schemas of the control API, as OpenAPI's `components.schemas` has them."""
    found = schemas((*SHAPES, *_PARTS), template)
    for name in ("Status", "Change"):
        _fill_in(found[name]["properties"], template)
    return found


def _fill_in(properties: dict[str, Any], template: str) -> None:
    for key, cls in _INSIDE.items():
        if key in properties:
            said = {k: v for k, v in properties[key].items() if k == "description"}
            inner = {"$ref": template.format(name=cls.__name__)}
            is_list = properties[key].get("type") == "array"
            properties[key] = {**said, **({"type": "array", "items": inner} if is_list else inner)}


def _all(types: Iterable[type]) -> set[type]:
    """The types and those their annotations name, all the way down."""
    found: set[type] = set()
    open_ones = list(types)
    while open_ones:
        cls = open_ones.pop()
        if cls in found or not hasattr(cls, "__annotations__"):
            continue
        found.add(cls)
        for hint in inspect.get_annotations(cls, eval_str=True).values():
            open_ones += [part for part in _leaves(hint) if isinstance(part, type)]
    return found


def _leaves(hint: Any) -> list[Any]:
    arguments = getattr(hint, "__args__", ())
    return [leaf for argument in arguments for leaf in _leaves(argument)] if arguments else [hint]


def _describe(schema: dict[str, Any], cls: type) -> None:
    schema.pop("title", None)
    schema["description"] = inspect.cleandoc(cls.__doc__ or "")
    for key, text in docstrings(cls).items():
        if key in schema.get("properties", {}):
            schema["properties"][key]["description"] = text


def docstrings(cls: type) -> dict[str, str]:
    """The strings under a class's keys; none where its source is not at hand."""
    try:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):
        return {}
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for here, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name):
            text = after.value if isinstance(after, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found[here.target.id] = " ".join(text.value.split())
    return found
