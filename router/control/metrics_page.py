"""Writes the tables of docs/reference/metrics.md from the exposition itself: families, types, labels.

`python -m router.control.metrics_page` rewrites what stands between the two marks in that page; `--check`
changes nothing and exits 1 when it is stale. What is rendered is a daemon that has counted everything
once, so that every label shows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from config.generated import refresh, replaced
from config.vocabulary import EngineName
from registry.engine import HOST, ModelId
from router.control.exposition import FAMILIES, render
from router.metrics import CONTROL, REFUSED, Metrics, Snapshot
from router.ports import Outcome, RequestRecord
from supervisor.lifecycle import State
from supervisor.view import DeviceView, FleetView, InstanceView

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"

LABELS: Final = {
    "model": "id of the model; `other` for a name that is no model, and for requests that named none",
    "endpoint": "inference path with its version (`/v1/chat/completions`), `/upstream/{id}`, "
    "`/v1/responses/{id}`; `control` for everything else",
    "outcome": "how the request ended; `upstream_failed` is cut by the engine, `abandoned` given up by us",
    "code": "of `modelyard_requests_total` the HTTP status (499: the client left before one was sent); of "
    "`modelyard_refusals_total` the [error code](errors.md)",
    "key": "name of the key",
    "device": "`gpu0`, `gpu1` … or `host`",
    "kind": "what is counted, see each family",
    "direction": "`in` from clients, `out` to them",
    "state": "see [the life of an instance](../explanation/lifecycle.md)",
    "version": "of the daemon",
}
"""Meaning of every label; a label without one is a failing test."""

_CLOSED: Final = frozenset({"outcome", "kind", "direction", "state"})
"""Labels whose values are few, known, and shown."""


def families() -> tuple[Metric, ...]:
    """Every family of ours, in the order in which it is declared, with a sample for each of its labels."""
    text = render(_everything_once()).decode()
    found = {metric.name: metric for metric in text_string_to_metric_families(text)}
    return tuple(found[name.removesuffix("_total")] for name in FAMILIES)


def tables() -> str:
    """What stands between the marks, in Markdown."""
    every = families()
    labels = dict.fromkeys(label for metric in every for label in _values(metric))
    meanings = "\n".join(f"| `{label}` | {LABELS[label]} |" for label in labels)
    return f"{_rows(every)}\n\n| label | meaning |\n| --- | --- |\n{meanings}"


def _rows(metrics: Iterable[Metric]) -> str:
    lines = ["| name | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in metrics:
        labels = "<br>".join(_label(name, values) for name, values in _values(metric).items()) or "none"
        lines.append(f"| `{_name(metric)}` | {metric.type} | {labels} | {metric.documentation} |")
    return "\n".join(lines)


def _label(name: str, values: Iterable[str]) -> str:
    shown = ", ".join(f"`{value}`" for value in values)
    return f"`{name}`: {shown}" if name in _CLOSED else f"`{name}`"


def _name(metric: Metric) -> str:
    """As it is exported: the parser takes a counter's suffix away."""
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def _values(metric: Metric) -> dict[str, dict[str, None]]:
    """The labels of a family to the values they have, in the order of the exposition."""
    found: dict[str, dict[str, None]] = {}
    for sample in metric.samples:
        for label, value in sample.labels.items():
            if label != "le":
                found.setdefault(label, {})[value] = None
    return found


def _everything_once() -> Snapshot:
    model = ModelId("qwen3-8b")
    metrics = Metrics(version="1.0.0", models=[model])
    for outcome in (*(one.value for one in Outcome), REFUSED, CONTROL):
        metrics.record(
            RequestRecord("1", "POST", "/v1/chat/completions", "local", model=model, outcome=outcome, key="a")
        )
    instance = InstanceView(
        model=model,
        engine=EngineName.VLLM,
        state=State.READY,
        incarnation=1,
        pid=1,
        port=1,
        since=0.0,
        leases=0,
        oldest_lease_seconds=0.0,
        waiting=0,
        oldest_wait_seconds=0.0,
        note="",
        progress=None,
        eta_seconds=None,
        idle_seconds=None,
        ttl=0.0,
        pinned=False,
        reserved_bytes=1,
        measured_bytes=1,
        shares=(),
        crashes=0,
        starts=1,
        retry_in_seconds=None,
        last_failure=None,
        log=None,
    )
    device = DeviceView(HOST, "memory", 1, 1, 1, 1, 1)
    return metrics.snapshot(FleetView(0.0, (instance,), (device,), waiting=0, stopping=False))


def main(arguments: Sequence[str]) -> int:
    """Rewrite the page, or with `--check` say whether it is fresh. Returns the exit status."""
    wanted = replaced(PAGE.read_text(encoding="utf-8"), tables(), "reference")
    return refresh(PAGE, wanted, arguments, source="router/control/exposition.py", target="reference")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
