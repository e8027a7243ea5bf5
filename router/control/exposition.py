"""The daemon's numbers in Prometheus' text format. Pure rendering of a `Snapshot`; may run in a thread.

`FAMILIES` lists every family with its help text; nothing else is exported but the process's own collector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from router.metrics import OTHER, Histogram, PerKey, PerModel, Snapshot
from supervisor.lifecycle import State
from supervisor.view import DeviceView, InstanceView

FAMILIES: Final = {
    "modelyard_requests_total": "Requests answered, by HTTP status.",
    "modelyard_refusals_total": "Requests we refused ourselves, by the stable error code.",
    "modelyard_request_seconds": "From a request's last byte to its answer's last byte.",
    "modelyard_first_byte_seconds": "From a request's last byte to its answer's first byte.",
    "modelyard_wait_seconds": "From a request's last byte to an instance that serves it.",
    "modelyard_tokens_total": "Tokens, as the engines reported them.",
    "modelyard_key_requests_total": "Requests by the name of their key; only with keys on.",
    "modelyard_key_tokens_total": "Tokens by the name of the request's key; only with keys on.",
    "modelyard_request_bytes_total": "Bytes of requests (in) and answers (out).",
    "modelyard_retries_total": "Requests sent a second time because no byte of an answer had come.",
    "modelyard_events_total": "What the supervisor reported.",
    "modelyard_instance_starts_total": "Engine processes spawned.",
    "modelyard_instance_exits_total": "Engine process trees that ended, asked for or not.",
    "modelyard_instance_state": "1 for the state the model's instance is in, 0 for the others.",
    "modelyard_instance_memory_bytes": "Memory of the model's instance on all devices.",
    "modelyard_device_bytes": "Memory of a device: total, budget, reserved, used, free.",
    "modelyard_in_flight": "Requests that an instance is serving.",
    "modelyard_waiting": "Requests that wait for an instance.",
    "modelyard_ready": "1 while a request can make progress, as /ready says; else 0.",
    "modelyard_loop_lag_seconds": "Longest delay of the event loop in the last minute.",
    "modelyard_loop_lag_distribution_seconds": "Delays of the event loop, measured sixteen times a second.",
    "modelyard_build_info": "Always 1; the version is the label.",
}
"""Every family this daemon exports, with its help text."""

_LAG: Final = "modelyard_loop_lag_distribution_seconds"

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def render(snapshot: Snapshot) -> bytes:
    """*snapshot* in Prometheus' text format, with the process's own memory, CPU and descriptors."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Families(snapshot))
    return generate_latest(registry)


_Rows = Iterable[tuple[tuple[str, ...], float]]


def _family(name: str, labels: tuple[str, ...], rows: _Rows) -> Metric:
    counts = name.endswith("_total")
    family: CounterMetricFamily | GaugeMetricFamily
    if counts:
        family = CounterMetricFamily(name.removesuffix("_total"), FAMILIES[name], labels=labels)
    else:
        family = GaugeMetricFamily(name, FAMILIES[name], labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _histogram(name: str, rows: Iterable[tuple[str, Histogram]]) -> Metric:
    family = HistogramMetricFamily(name, FAMILIES[name], labels=("model",))
    for model, histogram in rows:
        family.add_metric((model,), histogram.buckets(), histogram.total)
    return family


class _Families:
    """What `CollectorRegistry` asks for: the snapshot as metric families."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        """Nothing: the registry then does not collect once more only to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family of `FAMILIES`."""
        shot = self._snapshot
        yield _family(
            "modelyard_requests_total", ("model", "endpoint", "outcome", "code"), shot.requests.items()
        )
        yield _family("modelyard_refusals_total", ("model", "code"), shot.refusals.items())
        yield from _per_model(shot.models)
        yield from _per_key(shot.keys)
        yield _family("modelyard_events_total", ("kind",), (((k,), n) for k, n in shot.events.items()))
        yield from _of_instances(shot.fleet.instances)
        yield _of_devices(shot.fleet.devices)
        yield _family("modelyard_ready", (), [((), float(shot.ready))])
        yield _family("modelyard_loop_lag_seconds", (), [((), shot.lag_seconds)])
        spread = HistogramMetricFamily(_LAG, FAMILIES[_LAG])
        spread.add_metric((), shot.lag.buckets(), shot.lag.total)
        yield spread
        yield _family("modelyard_build_info", ("version",), [((shot.version,), 1.0)])


def _per_model(models: dict[str, PerModel]) -> Iterator[Metric]:
    # Sixty lines each: a cache full of models nobody asked for would bury the scrape.
    asked = {model: row for model, row in models.items() if row.requests}
    yield _histogram("modelyard_request_seconds", ((m, r.request_seconds) for m, r in asked.items()))
    yield _histogram("modelyard_first_byte_seconds", ((m, r.first_byte_seconds) for m, r in asked.items()))
    yield _histogram("modelyard_wait_seconds", ((m, r.wait_seconds) for m, r in asked.items()))
    tokens: list[tuple[tuple[str, ...], float]] = []
    moved: list[tuple[tuple[str, ...], float]] = []
    for model, row in models.items():
        tokens += [((model, "prompt"), row.prompt_tokens), ((model, "completion"), row.completion_tokens)]
        moved += [((model, "in"), row.bytes_in), ((model, "out"), row.bytes_out)]
    yield _family("modelyard_tokens_total", ("model", "kind"), tokens)
    yield _family("modelyard_request_bytes_total", ("model", "direction"), moved)
    yield _family("modelyard_retries_total", ("model",), (((m,), r.retries) for m, r in models.items()))
    own = [(model, row) for model, row in models.items() if model != OTHER]
    yield _family("modelyard_instance_starts_total", ("model",), (((m,), r.starts) for m, r in own))
    yield _family("modelyard_instance_exits_total", ("model",), (((m,), r.exits) for m, r in own))


def _per_key(keys: dict[tuple[str, str], PerKey]) -> Iterator[Metric]:
    requests: list[tuple[tuple[str, ...], float]] = [(pair, used.requests) for pair, used in keys.items()]
    tokens: list[tuple[tuple[str, ...], float]] = []
    for pair, used in keys.items():
        tokens += [((*pair, "prompt"), used.prompt_tokens), ((*pair, "completion"), used.completion_tokens)]
    yield _family("modelyard_key_requests_total", ("key", "model"), requests)
    yield _family("modelyard_key_tokens_total", ("key", "model", "kind"), tokens)


def _of_instances(instances: tuple[InstanceView, ...]) -> Iterator[Metric]:
    yield _family(
        "modelyard_instance_state",
        ("model", "state"),
        (((i.model, state.value), float(i.state is state)) for i in instances for state in State),
    )
    memory = (
        ((i.model, kind), float(value))
        for i in instances
        for kind, value in (("reserved", i.reserved_bytes), ("measured", i.measured_bytes))
        if value is not None
    )
    yield _family("modelyard_instance_memory_bytes", ("model", "kind"), memory)
    yield _family("modelyard_in_flight", ("model",), (((i.model,), i.leases) for i in instances))
    yield _family("modelyard_waiting", ("model",), (((i.model,), i.waiting) for i in instances))


def _of_devices(devices: tuple[DeviceView, ...]) -> Metric:
    rows = (
        ((device.id, kind), float(value))
        for device in devices
        for kind, value in (
            ("total", device.total_bytes),
            ("budget", device.budget_bytes),
            ("reserved", device.reserved_bytes),
            ("used", device.used_bytes),
            ("free", device.free_bytes),
        )
        if value is not None
    )
    return _family("modelyard_device_bytes", ("device", "kind"), rows)
