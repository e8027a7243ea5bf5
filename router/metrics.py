"""Counters of the whole daemon: plain integers where requests pass, Prometheus' shapes only when scraped.

`Metrics.record` runs once per request on the event loop, so it only keeps the record: it is counted with the
next ones, or when somebody looks. No lock is taken and no label object built. A scrape copies the numbers on
the loop (`snapshot`); what the copy looks like to Prometheus is `router.control.exposition`'s business.

Labels are bounded: a model that the catalog does not have is `other`, a path that is no inference endpoint is
the one it is about or `control`, statuses come from a fixed set and codes are counted up to a limit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final

from registry.capability import ENDPOINTS, special_endpoint
from router.ports import Outcome, RequestRecord
from supervisor.ports import Clock, EventKind, SupervisorEvent, Timer
from supervisor.view import FleetView

OTHER: Final = "other"
CONTROL: Final = "control"
REFUSED: Final = "refused"

SECONDS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""From the front's own cost (a few ms) to the longest answer or cold start we allow (10 minutes)."""

_OUTCOMES: Final = frozenset({*(outcome.value for outcome in Outcome), REFUSED, CONTROL})
_SERVED: Final = Outcome.SERVED.value
_STATUSES: Final = {status.value: str(status.value) for status in HTTPStatus} | {499: "499"}

ANSWERS_TIMED: Final = 32
"""Answers whose speed is averaged: enough to be steady, few enough to show that an engine got slower."""

COUNTED_AT_ONCE: Final = 32
"""Records that are kept before they are counted, one right after the other: what it takes is still in the
processor's caches then."""

MOST_CODES: Final = 64
"""Refusal codes are words of ours, about thirty; more than this is a bug that must not grow the series."""


@dataclass(slots=True)
class Histogram:
    """Counts per bucket (not cumulative) and the sum; the last bucket is +Inf."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0
    bounds: tuple[float, ...] = SECONDS

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def observe_all(self, seconds: Sequence[float]) -> None:
        """Each of them, at least one."""
        bounds, counts = self.bounds, self.counts
        lowest = bisect_left(bounds, min(seconds))
        if lowest == bisect_left(bounds, max(seconds)):
            counts[lowest] += len(seconds)  # as nearly always, of requests that came together
        else:
            for value in seconds:
                counts[bisect_left(bounds, value)] += 1
        self.total += sum(seconds)

    def copy(self) -> Histogram:
        return Histogram(self.counts.copy(), self.total, self.bounds)

    def buckets(self) -> list[tuple[str, float]]:
        running, rows = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            rows.append((bound, float(running)))
        return rows


@dataclass(frozen=True, slots=True)
class Use:
    """What was asked of one model since the daemon started."""

    requests: int = 0
    """Inference requests that named it, however they ended."""
    tokens_per_second: float | None = None
    """How fast one answer comes, over the last `ANSWERS_TIMED`; None when no engine has told."""


UNUSED: Final = Use()


@dataclass(slots=True)
class PerModel:
    """What is counted for one model (or for `other`)."""

    requests: int = 0
    request_seconds: Histogram = field(default_factory=Histogram)
    first_byte_seconds: Histogram = field(default_factory=Histogram)
    wait_seconds: Histogram = field(default_factory=Histogram)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    retries: int = 0
    starts: int = 0
    exits: int = 0
    timed: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=ANSWERS_TIMED))
    """(tokens, seconds they took) of the last answers."""

    def count(self, records: Sequence[RequestRecord]) -> None:
        """These requests more, which all ended in one way."""
        self.requests += len(records)
        self.bytes_in += sum([record.bytes_in for record in records])
        self.bytes_out += sum([record.bytes_out for record in records])
        self.retries += sum([record.retried for record in records])
        self.prompt_tokens += sum([record.prompt_tokens for record in records])
        self.completion_tokens += sum([record.completion_tokens for record in records])
        self.request_seconds.observe_all([record.total for record in records])
        # A refusal comes in no time and would make the engines look fast.
        if records[0].outcome == _SERVED:
            self.first_byte_seconds.observe_all([record.first_byte for record in records])
            self.wait_seconds.observe_all([record.waited for record in records])
            self.timed.extend([_timing(record) for record in records if record.completion_tokens > 1])

    def use(self) -> Use:
        tokens, seconds = map(sum, zip(*self.timed, strict=True)) if self.timed else (0, 0)
        return Use(self.requests, tokens / seconds if seconds > 0 else None)

    def copy(self) -> PerModel:
        if not (self.requests or self.starts or self.exits):
            return _UNTOUCHED  # most of hundreds, and a copy takes ten microseconds
        return replace(
            self,
            request_seconds=self.request_seconds.copy(),
            first_byte_seconds=self.first_byte_seconds.copy(),
            wait_seconds=self.wait_seconds.copy(),
            timed=self.timed.copy(),
        )


_UNTOUCHED: Final = PerModel()
"""The copy of every row that counts nothing; nobody counts in it."""


@dataclass(frozen=True, slots=True)
class RequestTotals:
    """Inference requests since the daemon started. `total` is the sum of the four below it."""

    total: int = 0
    served: int = 0
    refused: int = 0
    failed: int = 0
    """Cut or never answered: the engine's fault or ours."""
    client_gone: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True)
class PerKey:
    """What one key has used of one model."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def count(self, records: Sequence[RequestRecord]) -> None:
        """These requests more."""
        self.requests += len(records)
        self.prompt_tokens += sum([record.prompt_tokens for record in records])
        self.completion_tokens += sum([record.completion_tokens for record in records])


SeriesKey = tuple[str, str, str, str]
"""model, endpoint, outcome, HTTP status."""
_Alike = tuple[str, str, str, int, str]
"""What a record says: model, path, outcome, status, key. Those that say the same are counted together."""


@dataclass(frozen=True, slots=True)
class _Series:
    """Where requests that are alike are counted."""

    key: SeriesKey
    row: PerModel
    used: PerKey | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of every number at one moment; nothing in it changes any more."""

    requests: dict[SeriesKey, int]
    refusals: dict[tuple[str, str], int]
    models: dict[str, PerModel]
    keys: dict[tuple[str, str], PerKey]
    """By key's name and model."""
    events: dict[str, int]
    lag_seconds: float
    lag: Histogram
    version: str
    fleet: FleetView
    ready: bool
    """A request can make progress: what `/ready` answers."""


class Metrics:
    """The daemon's counters. Belongs to the event loop's thread."""

    def __init__(self, *, version: str, models: Iterable[str] = ()) -> None:
        self._version = version
        self._uncounted: list[RequestRecord] = []
        self._requests: dict[SeriesKey, int] = {}
        self._series: dict[_Alike, _Series] = {}
        """By what a record says of itself: where requests that were served are counted."""
        self._refusals: dict[tuple[str, str], int] = {}
        self._codes: set[str] = set()
        self._models: dict[str, PerModel] = {OTHER: PerModel()}
        self._keys: dict[tuple[str, str], PerKey] = {}
        self._events: dict[str, int] = {kind.value: 0 for kind in EventKind}
        self.lag = LagGauge()
        """Where the loop's lag is kept; a `LoopLag` feeds it."""
        self.set_models(models)

    def set_models(self, models: Iterable[str]) -> None:
        """The ids that may be labels. Series of models that are gone are dropped, those of others kept."""
        self._count_up()
        self._series.clear()
        wanted = {*models, OTHER}
        for gone in self._models.keys() - wanted:
            del self._models[gone]
        self._requests = {key: count for key, count in self._requests.items() if key[0] in wanted}
        self._refusals = {key: count for key, count in self._refusals.items() if key[0] in wanted}
        self._keys = {pair: used for pair, used in self._keys.items() if pair[1] in wanted}
        for model in wanted - self._models.keys():
            self._models[model] = PerModel()

    def set_keys(self, names: Iterable[str]) -> None:
        """The names of keys there are; what others used is dropped."""
        self._count_up()
        self._series.clear()
        wanted = frozenset(names)
        self._keys = {pair: used for pair, used in self._keys.items() if pair[0] in wanted}

    def record(self, record: RequestRecord) -> None:
        """Take note of a finished request. Satisfies `router.ports.Recorder`."""
        uncounted = self._uncounted
        uncounted.append(record)
        if len(uncounted) >= COUNTED_AT_ONCE:
            self._count_up()

    def _count_up(self) -> None:
        """Count what was noted: before anybody reads a number."""
        groups: dict[_Alike, list[RequestRecord]] = {}
        for record in self._uncounted:
            alike = (record.model, record.path, record.outcome, record.status, record.key)
            group = groups.get(alike)
            if group is None:
                groups[alike] = [record]
            else:
                group.append(record)
        self._uncounted.clear()
        known = self._series
        for alike, group in groups.items():
            series = known.get(alike)
            if series is None:
                for record in group:
                    self._count_one(record)
                continue
            self._requests[series.key] += len(group)
            series.row.count(group)
            if series.used is not None:
                series.used.count(group)

    def _count_one(self, record: RequestRecord) -> None:
        """Count *record*, and remember where others like it are counted, if their number is bounded."""
        asked = record.path.partition("?")[0]
        # What is the control app's on such a path, a browser's preflight, is no request to a model.
        endpoint = None if record.outcome == CONTROL else ENDPOINTS.get(asked)
        named = endpoint or special_endpoint(asked)
        row = self._models.get(record.model)
        model = OTHER if row is None else record.model
        outcome = record.outcome if record.outcome in _OUTCOMES else OTHER
        path = CONTROL if named is None else named.path
        key = (model, path, outcome, _STATUSES.get(record.status, OTHER))
        self._requests[key] = self._requests.get(key, 0) + 1
        if outcome == REFUSED:
            self._refuse(model, record.code)
        if endpoint is None:
            return
        (self._models[OTHER] if row is None else row).count([record])
        used = None
        if record.key:
            used = self._keys.get((record.key, model))
            if used is None:
                used = self._keys[record.key, model] = PerKey()
            used.count([record])
        if row is not None and outcome == _SERVED and record.status in _STATUSES and record.path in ENDPOINTS:
            alike = (record.model, record.path, outcome, record.status, record.key)
            self._series[alike] = _Series(key, row, used)

    def _refuse(self, model: str, code: str) -> None:
        if code not in self._codes:
            if len(self._codes) >= MOST_CODES:
                code = OTHER
            self._codes.add(code)
        self._refusals[model, code] = self._refusals.get((model, code), 0) + 1

    def on_event(self, event: SupervisorEvent) -> None:
        """Count what the supervisor reported. Satisfies `supervisor.ports.EventSink`."""
        self._events[event.kind.value] += 1
        row = self._models.get(event.model) or self._models[OTHER]
        if event.kind is EventKind.SPAWNED:
            # A tree taken over from an earlier daemon was started by that one.
            row.starts += not event.data.get("adopted")
        elif event.kind is EventKind.EXITED:
            row.exits += 1

    def totals(self) -> RequestTotals:
        """Inference requests by how they ended, over all models."""
        self._count_up()
        by_outcome = dict.fromkeys((*_OUTCOMES, OTHER), 0)
        for (_, endpoint, outcome, _), count in self._requests.items():
            if endpoint in ENDPOINTS:
                by_outcome[outcome] += count
        rows = self._models.values()
        served, refused = by_outcome[Outcome.SERVED], by_outcome[REFUSED]
        client_gone, total = by_outcome[Outcome.CLIENT_GONE], sum(by_outcome.values())
        return RequestTotals(
            total=total,
            served=served,
            refused=refused,
            failed=total - served - refused - client_gone,
            client_gone=client_gone,
            prompt_tokens=sum(row.prompt_tokens for row in rows),
            completion_tokens=sum(row.completion_tokens for row in rows),
        )

    def use(self) -> dict[str, Use]:
        """Of every model that was asked for, by id; a copy, for any thread."""
        self._count_up()
        return {model: row.use() for model, row in self._models.items() if row.requests}

    def use_of(self, model: str) -> Use:
        """Of one; `UNUSED` for an id that is no label."""
        self._count_up()
        row = self._models.get(model)
        return UNUSED if row is None else row.use()

    def used_by_key(self) -> dict[tuple[str, str], PerKey]:
        """What keys have used, by name and model, since the daemon started; a copy."""
        self._count_up()
        return {pair: replace(used) for pair, used in self._keys.items()}

    def snapshot(self, fleet: FleetView, *, ready: bool = True) -> Snapshot:
        """Everything now, with the gauges of *fleet*; O(series)."""
        self._count_up()
        return Snapshot(
            requests=self._requests.copy(),
            refusals=self._refusals.copy(),
            models={model: row.copy() for model, row in self._models.items()},
            keys=self.used_by_key(),
            events=self._events.copy(),
            lag_seconds=self.lag.worst(),
            lag=self.lag.spread.copy(),
            version=self._version,
            fleet=fleet,
            ready=ready,
        )


def _timing(record: RequestRecord) -> tuple[int, float]:
    """Tokens and the seconds in which they were generated, as far as can be seen from outside."""
    if record.streamed:
        # The first token is what the reading of the prompt ended with.
        return record.completion_tokens - 1, max(0.0, record.total - record.first_byte)
    return record.completion_tokens, max(0.0, record.total - record.waited)


# -- how many requests a second ---------------------------------------------------------------------

RATE_SECONDS: Final = 10
"""What a rate is taken over: long enough to be steady at one request a second, short enough to follow."""


class RequestRate:
    """Inference requests that ended per second, over the last `RATE_SECONDS`; looks at their total."""

    def __init__(self, clock: Clock, total: Callable[[], int]) -> None:
        self._clock = clock
        self._total = total
        self._seen: deque[tuple[float, int]] = deque(maxlen=RATE_SECONDS + 1)
        """(when, total) of the last looks."""
        self._timer: Timer | None = None

    def start(self) -> None:
        """Look from now on, until `close`."""
        self._seen.append((self._clock.now(), self._total()))
        self._timer = self._clock.call_later(1.0, self.start)

    def per_second(self) -> float:
        """The rate, to a tenth; 0 before the second look."""
        if len(self._seen) < 2:
            return 0.0
        (since, before), (until, after) = self._seen[0], self._seen[-1]
        # Never negative: the total falls when a reload drops the series of models that are gone.
        return round(max(0, after - before) / (until - since), 1)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


# -- the event loop's lag --------------------------------------------------------------------------


LAG_EVERY: Final = 0.062
"""Seconds between two measurements: a stall of a tenth of a second is seen for certain. It does not divide a
second: what happens each second (a scrape, a probe, pages that poll) would meet one in ten measurements, or
none ever. These wander through all of a second in half a minute."""
LAG_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class LagGauge:
    """The longest of the last minute's delays, so that a scrape sees every stall; and how they are spread."""

    def __init__(self) -> None:
        self._recent = [0.0] * round(60 / LAG_EVERY)
        self._next = 0
        self.spread = Histogram([0] * (len(LAG_BOUNDS) + 1), bounds=LAG_BOUNDS)

    def observe(self, seconds: float) -> None:
        """One measured delay; never negative."""
        delay = max(0.0, seconds)
        self._recent[self._next] = delay
        self._next = (self._next + 1) % len(self._recent)
        self.spread.observe(delay)

    def worst(self) -> float:
        """The longest of them."""
        return max(self._recent)


class LoopLag:
    """Measures how late a timer comes: that long, requests waited for somebody's slow code."""

    def __init__(self, clock: Clock, gauge: LagGauge, *, every: float = LAG_EVERY) -> None:
        self._clock = clock
        self._gauge = gauge
        self._every = every
        self._timer: Timer | None = None

    def start(self) -> None:
        """Measure from now on, until `close`."""
        due = self._clock.now() + self._every

        def tick() -> None:
            self._gauge.observe(self._clock.now() - due)
            self.start()

        self._timer = self._clock.call_later(self._every, tick)

    def close(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
