"""Counters: cheap, bounded, and right in Prometheus' format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from registry.engine import ModelId
from router.control.exposition import FAMILIES, render
from router.metrics import (
    LAG_EVERY,
    MOST_CODES,
    RATE_SECONDS,
    UNUSED,
    LagGauge,
    LoopLag,
    Metrics,
    RequestRate,
    Use,
)
from router.ports import RequestRecord
from supervisor.lifecycle import State
from supervisor.ports import EventKind, SupervisorEvent
from tests.support.fake_fleet import FakeFleet, instance_view
from tests.support.fakes import FakeClock

CHAT = "/v1/chat/completions"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def record(**changes: object) -> RequestRecord:
    made = RequestRecord("r1", "POST", CHAT, "127.0.0.1", model="m", status=200, outcome="served")
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def scrape(metrics: Metrics, fleet: FakeFleet | None = None) -> Samples:
    view = (fleet or FakeFleet(FakeClock())).view()
    text = render(metrics.snapshot(view)).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1", models=["m"])


def test_a_request_is_counted_once_under_its_labels(metrics: Metrics) -> None:
    metrics.record(record())
    metrics.record(record(path="/chat/completions"))
    samples = scrape(metrics)
    labels = {"model": "m", "endpoint": CHAT, "outcome": "served", "code": "200"}
    assert value(samples, "modelyard_requests_total", **labels) == 2
    assert sum(v for (name, _), v in samples.items() if name == "modelyard_requests_total") == 2


def test_labels_are_bounded_whatever_clients_send(metrics: Metrics) -> None:
    for number in range(500):
        metrics.record(
            record(model=f"x{number}", path=f"/p{number}", outcome=f"o{number}", status=600 + number)
        )
        metrics.record(record(outcome="refused", code=f"c{number}", status=400))
    samples = scrape(metrics)
    assert len([1 for name, _ in samples if name == "modelyard_requests_total"]) == 2
    assert len([1 for name, _ in samples if name == "modelyard_refusals_total"]) == MOST_CODES + 1
    assert value(samples, "modelyard_refusals_total", model="m", code="other") == 500 - MOST_CODES


def test_histograms_are_cumulative_and_sum(metrics: Metrics) -> None:
    for seconds in (0.001, 0.3, 0.3, 10_000.0):
        metrics.record(record(total=seconds, first_byte=seconds, waited=seconds))
    samples = scrape(metrics)
    for name in ("request", "first_byte", "wait"):
        family = f"modelyard_{name}_seconds"
        assert value(samples, f"{family}_bucket", model="m", le="0.005") == 1
        assert value(samples, f"{family}_bucket", model="m", le="0.5") == 3
        assert value(samples, f"{family}_bucket", model="m", le="600.0") == 3
        assert value(samples, f"{family}_bucket", model="m", le="+Inf") == 4
        assert value(samples, f"{family}_count", model="m") == 4
        assert value(samples, f"{family}_sum", model="m") == pytest.approx(10_000.601)


def test_a_bucket_holds_its_own_bound(metrics: Metrics) -> None:
    metrics.record(record(total=0.5))
    assert value(scrape(metrics), "modelyard_request_seconds_bucket", model="m", le="0.5") == 1


def test_refusals_do_not_make_engines_look_fast(metrics: Metrics) -> None:
    metrics.record(record(outcome="refused", code="queue_full", status=429))
    samples = scrape(metrics)
    assert value(samples, "modelyard_first_byte_seconds_count", model="m") == 0
    assert value(samples, "modelyard_refusals_total", model="m", code="queue_full") == 1


def test_tokens_bytes_and_retries_add_up(metrics: Metrics) -> None:
    for _ in range(2):
        metrics.record(record(prompt_tokens=10, completion_tokens=3, bytes_in=7, bytes_out=90, retried=True))
    samples = scrape(metrics)
    assert value(samples, "modelyard_tokens_total", model="m", kind="prompt") == 20
    assert value(samples, "modelyard_tokens_total", model="m", kind="completion") == 6
    assert value(samples, "modelyard_request_bytes_total", model="m", direction="in") == 14
    assert value(samples, "modelyard_request_bytes_total", model="m", direction="out") == 180
    assert value(samples, "modelyard_retries_total", model="m") == 2


def test_control_requests_are_counted_but_are_no_model_requests(metrics: Metrics) -> None:
    metrics.record(record(path="/api/status?x=1", model="", outcome="control"))
    assert metrics.totals().total == 0
    labels = {"model": "other", "endpoint": "control", "outcome": "control", "code": "200"}
    assert value(scrape(metrics), "modelyard_requests_total", **labels) == 1


def test_a_preflight_is_no_request_to_a_model(metrics: Metrics) -> None:
    metrics.record(record(method="OPTIONS", model="", status=204, outcome="control"))
    assert metrics.totals().total == 0
    labels = {"model": "other", "endpoint": "control", "outcome": "control", "code": "204"}
    assert value(scrape(metrics), "modelyard_requests_total", **labels) == 1


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [("/upstream/m/metrics", "/upstream/{id}"), ("/v1/responses/resp_1/cancel", "/v1/responses/{id}")],
)
def test_paths_that_name_what_they_are_about_are_one_label_and_no_total(
    metrics: Metrics, path: str, endpoint: str
) -> None:
    metrics.record(record(path=path, prompt_tokens=5))
    assert (metrics.totals().total, metrics.totals().prompt_tokens) == (0, 0)
    labels = {"model": "m", "endpoint": endpoint, "outcome": "served", "code": "200"}
    assert value(scrape(metrics), "modelyard_requests_total", **labels) == 1


@pytest.mark.parametrize("ready", [True, False])
def test_readiness_is_a_gauge(metrics: Metrics, ready: bool) -> None:
    text = render(metrics.snapshot(FakeFleet(FakeClock()).view(), ready=ready)).decode()
    assert f"modelyard_ready {float(ready)}\n" in text


def test_totals_split_by_how_requests_ended(metrics: Metrics) -> None:
    for outcome in ("served", "served", "refused", "client_gone", "upstream_failed", "abandoned"):
        metrics.record(record(outcome=outcome, prompt_tokens=1))
    totals = metrics.totals()
    assert (totals.total, totals.served, totals.refused) == (6, 2, 1)
    assert (totals.client_gone, totals.failed) == (1, 2)
    assert totals.prompt_tokens == 6
    assert metrics.use_of("m").requests == 6
    assert metrics.use_of("unheard-of") == UNUSED


def test_what_was_asked_of_each_model_is_a_copy() -> None:
    metrics = Metrics(version="1", models=["m", "quiet"])
    for seconds in (1.0, 3.0):
        metrics.record(record(completion_tokens=20, total=seconds))
    before = metrics.use()
    assert before == {"m": Use(2, 10.0)}
    metrics.record(record())
    assert metrics.use_of("m") == Use(3, 10.0)
    assert before == {"m": Use(2, 10.0)}
    assert metrics.use_of("quiet") == UNUSED


def test_a_model_that_was_only_started_is_counted_apart_from_those_at_rest(metrics: Metrics) -> None:
    metrics.set_models(["m", "a", "b"])
    at_rest = metrics.snapshot(FakeFleet(FakeClock()).view())
    metrics.on_event(SupervisorEvent(EventKind.SPAWNED, ModelId("a"), 1, 1.7e9, {}))
    metrics.record(record(model="b"))
    samples = scrape(metrics)
    starts = "modelyard_instance_starts_total"
    assert [value(samples, starts, model=name) for name in "mab"] == [0, 1, 0]
    assert {row.requests for row in at_rest.models.values()} == {0}


def test_models_that_go_take_their_series_along(metrics: Metrics) -> None:
    metrics.record(record())
    metrics.set_models(["new"])
    samples = scrape(metrics)
    assert not [labels for _, labels in samples if ("model", "m") in labels]
    assert value(samples, "modelyard_instance_starts_total", model="new") == 0


def test_models_that_stay_keep_their_counts(metrics: Metrics) -> None:
    metrics.record(record())
    metrics.set_models(["m", "new"])
    assert metrics.use_of("m").requests == 1
    assert metrics.totals().served == 1


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        (EventKind.SPAWNED, "modelyard_instance_starts_total"),
        (EventKind.EXITED, "modelyard_instance_exits_total"),
    ],
)
def test_starts_and_exits_are_counted_from_events(metrics: Metrics, kind: EventKind, family: str) -> None:
    metrics.on_event(SupervisorEvent(kind, ModelId("m"), 1, 0.0))
    samples = scrape(metrics)
    assert value(samples, family, model="m") == 1
    assert value(samples, "modelyard_events_total", kind=kind.value) == 1


def test_a_tree_taken_over_is_no_start(metrics: Metrics) -> None:
    metrics.on_event(SupervisorEvent(EventKind.SPAWNED, ModelId("m"), 1, 0.0, {"adopted": True}))
    assert value(scrape(metrics), "modelyard_instance_starts_total", model="m") == 0


def test_every_kind_of_event_and_every_state_exists_at_zero(metrics: Metrics) -> None:
    fleet = FakeFleet(FakeClock(), instance_view("m", State.READY))
    samples = scrape(metrics, fleet)
    for kind in EventKind:
        assert value(samples, "modelyard_events_total", kind=kind.value) == 0
    states = {
        state: value(samples, "modelyard_instance_state", model="m", state=state.value) for state in State
    }
    assert states == {state: float(state is State.READY) for state in State}


def test_gauges_come_from_the_view(metrics: Metrics) -> None:
    view = replace(instance_view("m", State.READY), leases=2, waiting=5, measured_bytes=None)
    samples = scrape(metrics, FakeFleet(FakeClock(), view))
    assert value(samples, "modelyard_in_flight", model="m") == 2
    assert value(samples, "modelyard_waiting", model="m") == 5
    assert value(samples, "modelyard_instance_memory_bytes", model="m", kind="measured") is None
    assert value(samples, "modelyard_device_bytes", device="host", kind="total") == 32 * 2**30


def test_a_snapshot_does_not_change_any_more(metrics: Metrics) -> None:
    snapshot = metrics.snapshot(FakeFleet(FakeClock()).view())
    before = render(snapshot)
    metrics.record(record(total=1.0, prompt_tokens=5, outcome="refused", code="x"))
    metrics.on_event(SupervisorEvent(EventKind.READY, ModelId("m"), 1, 0.0))

    def ours(text: bytes) -> Iterator[bytes]:
        return (line for line in text.splitlines() if line.startswith(b"modelyard_"))

    assert list(ours(render(snapshot))) == list(ours(before))


def test_exported_families_are_those_declared(metrics: Metrics) -> None:
    text = render(metrics.snapshot(FakeFleet(FakeClock(), instance_view("m")).view())).decode()
    declared = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# HELP modelyard_")}
    assert declared == set(FAMILIES)


def test_model_names_with_quotes_do_not_break_the_format() -> None:
    metrics = Metrics(version="1", models=['we"ird\\\n'])
    metrics.record(record(model='we"ird\\\n'))
    assert value(scrape(metrics), "modelyard_tokens_total", model='we"ird\\\n', kind="prompt") == 0


# -- lag


def test_lag_is_how_late_the_timer_came() -> None:
    clock, gauge = FakeClock(), LagGauge()
    lag = LoopLag(clock, gauge)
    lag.start()
    clock.advance(1.0)
    assert gauge.worst() == 0.0
    late = LateClock()
    LoopLag(late, gauge).start()
    late.fire(after=LAG_EVERY + 0.25)
    assert gauge.worst() == pytest.approx(0.25)


def test_lag_is_measured_at_every_moment_of_a_second_in_turn() -> None:
    moments, now = set(), 0.0
    while now < 31.0:
        moments.add(round(now % 1.0, 6))
        now += LAG_EVERY
    in_turn = sorted(moments)
    assert max(b - a for a, b in zip(in_turn, [*in_turn[1:], in_turn[0] + 1.0], strict=True)) < 0.0025


def test_lag_is_forgotten_after_a_minute() -> None:
    gauge = LagGauge()
    gauge.observe(3.0)
    for _ in range(round(60 / LAG_EVERY) - 1):
        gauge.observe(0.0)
    assert gauge.worst() == 3.0
    gauge.observe(0.0)
    assert gauge.worst() == 0.0


def test_how_lag_is_spread_is_exported() -> None:
    metrics = Metrics(version="1", models=[])
    for seconds in (0.0, 0.0004, 0.003, 0.3, 5.0):
        metrics.lag.observe(seconds)
    text = scrape(metrics)
    name = "modelyard_loop_lag_distribution_seconds_bucket"
    assert [value(text, name, le=le) for le in ("0.0005", "0.005", "1.0", "+Inf")] == [2, 3, 4, 5]


def test_a_closed_lag_leaves_no_timer() -> None:
    clock = FakeClock()
    lag = LoopLag(clock, LagGauge())
    lag.start()
    clock.advance(5.0)
    lag.close()
    lag.close()
    assert clock.next_timer() is None


class LateClock(FakeClock):
    """A clock whose loop was held up."""

    def fire(self, *, after: float) -> None:
        """Run the next timer only now."""
        _, _, timer = self._heap.pop(0)
        self._now += after
        assert timer.callback is not None
        timer.callback()


# -- requests per second


def test_the_rate_is_taken_over_the_last_seconds_only() -> None:
    clock, ended = FakeClock(), 100
    rate = RequestRate(clock, lambda: ended)
    rate.start()
    assert rate.per_second() == 0.0
    for _ in range(2 * RATE_SECONDS):
        ended += 3
        clock.advance(1)
    assert rate.per_second() == 3.0
    clock.advance(RATE_SECONDS / 2)
    assert rate.per_second() == 1.5
    clock.advance(RATE_SECONDS)
    assert rate.per_second() == 0.0


def test_a_total_that_falls_is_no_negative_rate() -> None:
    clock, ended = FakeClock(), 100
    rate = RequestRate(clock, lambda: ended)
    rate.start()
    ended = 10  # a reload dropped the series of models that are gone
    clock.advance(1)
    assert rate.per_second() == 0.0
    rate.close()
    ended = 50
    clock.advance(60)
    assert rate.per_second() == 0.0
