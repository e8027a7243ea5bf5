"""The access log: one line per request, written in batches.

Neither query strings nor headers nor bodies get in, so no secret does. What clients chose (path, model) is
escaped where it is not printable: a request cannot forge a line or colour a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from router.logs import Format, LineSink
from router.ports import RequestRecord
from supervisor.ports import Clock, Timer

FLUSH_SECONDS: Final = 0.25
"""Longest a line waits: a person tailing the log does not notice, and a busy second is four writes."""
FLUSH_LINES: Final = 256
"""A batch of this many is written at once, so that memory stays bounded at any rate."""
MADE_AT_ONCE: Final = 32
"""Records that are kept before their lines are made: few enough to be still in the processor's caches."""
_READS: Final = ("GET", "HEAD", "OPTIONS")
LONGEST_TEXT: Final = 200
"""Characters of a path or model that are kept."""


def _plain(text: str) -> str:
    """*text* without anything that could end a line, and not longer than `LONGEST_TEXT`."""
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "…"
    if text.isprintable():
        return text
    return text.encode("unicode_escape").decode("ascii")


def _path(record: RequestRecord) -> str:
    return _plain(record.path.partition("?")[0])


def size(count: int) -> str:
    """*count* bytes in three or four characters: `512B`, `1.2kB`, `64MB`."""
    if count < 1000:
        return f"{count}B"
    value, unit = count / 1000, "kB"
    for larger in ("MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f}{unit}" if value < 10 else f"{value:.0f}{unit}"


def console_line(record: RequestRecord, stamp: str) -> str:
    """For people: time, client, request, model, status, outcome, size, then times that matter."""
    line = f"{stamp} {record.client or '-'} {record.method} {_path(record)} {record.status}"
    if record.model:
        line += f" {_plain(record.model)}"
    line += f" {record.code or record.outcome} {size(record.bytes_out)} {record.total:.3f}s"
    if record.first_byte:
        line += f" first={record.first_byte:.3f}s"
    if record.waited >= 0.001:
        line += f" waited={record.waited:.3f}s"
    if record.prompt_tokens or record.completion_tokens:
        line += f" tokens={record.prompt_tokens}+{record.completion_tokens}"
    if record.retried:
        line += " retried"
    if record.key:
        line += f" key={record.key}"
    return f"{line} {record.request_id}\n"


def _is_plain(path: str, model: str) -> bool:
    """Both are written as they are. Requests name the same few things again and again."""
    if (path, model) in _PLAIN:
        return True
    if _plain(path.partition("?")[0]) != path or _plain(model) != model:
        return False
    if len(_PLAIN) >= _MOST_PLAIN:
        _PLAIN.clear()
    _PLAIN.add((path, model))
    return True


_PLAIN: set[tuple[str, str]] = set()
_MOST_PLAIN = 256
"""Each of at most twice `LONGEST_TEXT` characters."""
_encode_lines = msgspec.json.Encoder().encode_lines


def _for_programs(record: RequestRecord, stamp: str) -> RequestRecord:
    """*record* as a program reads it: seconds to the microsecond, nothing unprintable."""
    if not _is_plain(record.path, record.model):
        # A copy: whoever counts goes by what was asked.
        record = replace(record, path=_path(record), model=_plain(record.model))
    record.time = stamp
    if record.waited:
        record.waited = int(record.waited * 1e6 + 0.5) / 1e6
    record.first_byte = int(record.first_byte * 1e6 + 0.5) / 1e6
    record.total = int(record.total * 1e6 + 0.5) / 1e6
    return record


class AccessLog:
    """`note` satisfies `router.ports.Recorder`. Belongs to the event loop's thread."""

    def __init__(self, sink: LineSink | Callable[[str], None], *, style: Format, clock: Clock) -> None:
        self._write = sink.write if isinstance(sink, LineSink) else sink
        self._json = style == "json"
        self._stamp_format = "%Y-%m-%dT%H:%M:%SZ" if style == "json" else "%H:%M:%S"
        self._to_parts = time.gmtime if style == "json" else time.localtime
        self._clock = clock
        self._records: list[RequestRecord] = []
        self._lines: list[str] = []
        """Made of `MADE_AT_ONCE` records each."""
        self._timer: Timer | None = None

    def note(self, record: RequestRecord) -> None:
        """Take a finished request; its line is written within `FLUSH_SECONDS`.

        Reads of the control app that went well are left out: an open status page alone is one a second.
        """
        if record.outcome == "control" and record.status < 400 and record.method in _READS:
            return
        records = self._records
        records.append(record)
        if len(records) >= MADE_AT_ONCE:
            self._make_lines()
            if len(self._lines) >= FLUSH_LINES // MADE_AT_ONCE:
                self.flush()
                return
        if self._timer is None:
            self._timer = self._clock.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what there is, now. Also to be called once before the sink is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._records:
            self._make_lines()
        if self._lines:
            self._write("".join(self._lines))
            self._lines.clear()

    def _make_lines(self) -> None:
        records = self._records
        stamp = time.strftime(self._stamp_format, self._to_parts(self._clock.wall()))
        if self._json:
            lines = _encode_lines([_for_programs(record, stamp) for record in records]).decode()
        else:
            lines = "".join([console_line(record, stamp) for record in records])
        self._lines.append(lines)
        records.clear()
