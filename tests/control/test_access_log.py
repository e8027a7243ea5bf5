"""The access log: one line per request, batched, with nothing forged in it."""

from __future__ import annotations

import json

import pytest

from router.access_log import FLUSH_LINES, FLUSH_SECONDS, LONGEST_TEXT, AccessLog, console_line, size
from router.logs import Format
from router.ports import RefusedRecord, RequestRecord
from tests.support.fakes import FakeClock


def record(**changes: object) -> RequestRecord:
    made = RequestRecord(
        "req-1",
        "POST",
        "/v1/chat/completions?key=hunter2",
        "127.0.0.1",
        model="qwen",
        status=200,
        outcome="served",
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


class Log:
    """An access log whose output is kept."""

    def __init__(self, style: Format = "console") -> None:
        self.clock = FakeClock()
        self.writes: list[str] = []
        self.access = AccessLog(self.writes.append, style=style, clock=self.clock)


def test_a_line_says_what_an_operator_asks() -> None:
    line = console_line(
        record(
            bytes_out=1234, total=0.5321, first_byte=0.12, waited=4.0, prompt_tokens=12, completion_tokens=56
        ),
        "12:00:00",
    )
    assert line == (
        "12:00:00 127.0.0.1 POST /v1/chat/completions 200 qwen served 1.2kB 0.532s "
        "first=0.120s waited=4.000s tokens=12+56 req-1\n"
    )


def test_a_refusal_shows_its_code() -> None:
    line = console_line(record(status=404, outcome="refused", code="model_not_found", model=""), "t")
    assert " 404 model_not_found 0B " in line


def test_programs_are_told_a_refusal_by_the_events_name() -> None:
    log = Log("json")
    log.access.note(record())
    log.access.note(RefusedRecord("req-2", "POST", "/v1/x", "a", status=404, outcome="refused", code="c"))
    log.access.flush()
    served, refused = map(json.loads, "".join(log.writes).splitlines())
    assert (served["event"], served["outcome"]) == ("request_served", "served")
    assert (refused["event"], refused["code"]) == ("request_refused", "c")
    assert set(refused) == set(served)


def test_lines_are_written_together_and_soon() -> None:
    log = Log()
    log.access.note(record())
    log.access.note(record())
    assert log.writes == []
    log.clock.advance(FLUSH_SECONDS)
    assert len(log.writes) == 1
    assert log.writes[0].count("\n") == 2
    assert log.clock.next_timer() is None
    log.access.note(record())
    log.clock.advance(FLUSH_SECONDS)
    assert len(log.writes) == 2


def test_a_burst_is_written_before_it_piles_up() -> None:
    log = Log()
    for _ in range(FLUSH_LINES):
        log.access.note(record())
    assert log.writes[0].count("\n") == FLUSH_LINES
    assert log.clock.next_timer() is None


def test_flush_writes_what_is_left_once() -> None:
    log = Log()
    log.access.note(record())
    log.access.flush()
    log.access.flush()
    assert len(log.writes) == 1


def test_json_lines_have_stable_keys() -> None:
    log = Log("json")
    log.access.note(record(total=1.0, streamed=True))
    log.access.flush()
    entry = json.loads(log.writes[0])
    assert entry["time"].endswith("Z")
    assert entry["path"] == "/v1/chat/completions"
    assert (entry["model"], entry["status"], entry["total_seconds"], entry["streamed"]) == (
        "qwen",
        200,
        1.0,
        True,
    )
    refused = Log("json")
    refused.access.note(record(outcome="refused"))
    refused.access.flush()
    assert set(json.loads(refused.writes[0])) == set(entry)


@pytest.mark.parametrize("style", ["console", "json"])
def test_no_query_string_is_logged(style: Format) -> None:
    log = Log(style)
    log.access.note(record())
    log.access.flush()
    assert "hunter2" not in log.writes[0]


@pytest.mark.parametrize("style", ["console", "json"])
@pytest.mark.parametrize(
    "evil", ["a\n127.0.0.1 GET / 200", "\x1b[31mred", "\u202ertl", "\udcff\ud800", "x" * 10_000]
)
def test_clients_cannot_forge_lines(style: Format, evil: str) -> None:
    log = Log(style)
    log.access.note(record(model=evil, path=f"/{evil}"))
    log.access.flush()
    (text,) = log.writes
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
    assert len(text) < 4 * LONGEST_TEXT
    text.encode()


def test_reads_of_status_that_went_well_are_left_out() -> None:
    log = Log()
    log.access.note(record(method="GET", path="/api/status", outcome="control"))
    log.access.flush()
    assert log.writes == []
    log.access.note(record(method="GET", path="/nowhere", outcome="control", status=404))
    log.access.note(record(method="POST", path="/api/models/m/unload", outcome="control"))
    log.access.flush()
    assert log.writes[0].count("\n") == 2


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1.0kB"), (64_000_000, "64MB"), (7_200_000_000, "7.2GB")],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert size(count) == text
