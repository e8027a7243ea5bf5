"""Where log lines go and what they look like.

`console` for a person (colours only on a terminal), one JSON object per line elsewhere. The loggers of other
libraries (asyncio, aiohttp) come out the same way. Values under keys that name a secret are masked.

Lines are written by a thread of their own: a terminal stopped with Ctrl-S or a stalled log collector then
costs lines and not answers.
"""

from __future__ import annotations

import atexit
import logging
import re
import sys
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]

PENDING_LIMIT: Final = 4 * 2**20
"""Characters that may wait for the writing thread: minutes of ordinary logs, little against a model."""

_SECRET: Final = re.compile(
    r"(?:^|[_.\-\s])(?:api[_\-]?key|key|token|secret|password|authorization|cookie|credential)$",
    re.IGNORECASE,
)
MASK: Final = "***"


class LineSink:
    """Writes text to a stream from a thread of its own, in order. `write` never blocks.

    When more than `PENDING_LIMIT` characters wait, lines are dropped and counted; the count is written with
    the next line there is room for, at the latest at `close`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._pending = 0
        self._dropped = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Write *text*, which ends with a newline. From any thread; after `close` it is lost."""
        with self._lock:
            if self._closed:
                return
            if self._pending + len(text) > PENDING_LIMIT:
                self._dropped += text.count("\n")
                return
            text = self._confession() + text
            self._pending += len(text)
            self._queue.put(text)

    def _confession(self) -> str:
        dropped, self._dropped = self._dropped, 0
        return f"[{dropped} log lines dropped: the log's reader is too slow]\n" if dropped else ""

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, at most *timeout* seconds long, and stop. The second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(self._confession())
            self._queue.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while (text := self._queue.get()) is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                # The terminal or the pipe is gone. The daemon outlives its log; there is nobody to tell.
                pass
            with self._lock:
                self._pending -= len(text)


def choose_format(
    wanted: Literal["auto", "console", "json"], *, is_tty: bool, environ: Mapping[str, str]
) -> Format:
    """What `auto` means here: console on a terminal, JSON under systemd and wherever nobody reads along."""
    if wanted != "auto":
        return wanted
    if "INVOCATION_ID" in environ or "JOURNAL_STREAM" in environ:
        return "json"
    return "console" if is_tty else "json"


def configure_logging(
    *, style: Format, level: Level, stream: TextIO | None = None, colours: bool | None = None
) -> LineSink:
    """Send everything structlog and the standard library log to *stream* (stderr unless given).

    Called once, by whoever assembles the process. Returns the sink, which the access log shares so that lines
    come in order; it is closed at exit. *colours* None means: on a terminal.
    """
    out = sys.stderr if stream is None else stream
    sink = LineSink(out)
    atexit.register(sink.close)
    threshold = getattr(logging, level.upper())
    structlog.configure(
        processors=_processors(style, colours=out.isatty() if colours is None else colours),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda name="modelyard", *_: _SinkLogger(sink, str(name)),
        cache_logger_on_first_use=False,
    )
    _adopt_stdlib(threshold)
    return sink


def _processors(style: Format, *, colours: bool) -> list[Processor]:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _name_logger,
        mask_secrets,
        structlog.processors.StackInfoRenderer(),
    ]
    if style == "json":
        return [
            *shared,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    return [
        *shared,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        # Plain tracebacks: rich ones print local variables, and locals hold keys.
        structlog.dev.ConsoleRenderer(
            colors=colours, pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
        ),
    ]


class _SinkLogger:
    """The end of structlog's chain: a rendered line to the sink."""

    def __init__(self, sink: LineSink, name: str) -> None:
        self._sink = sink
        self.name = name

    def msg(self, message: str) -> None:
        self._sink.write(message + "\n")

    debug = info = warning = warn = error = exception = critical = fatal = log = msg


def _name_logger(logger: Any, _: str, event: EventDict) -> EventDict:
    name = getattr(logger, "name", None)
    if name is not None:
        event.setdefault("logger", name)
    return event


# -- secrets ---------------------------------------------------------------------------------------


def is_secret(key: str) -> bool:
    """True for names such as `key`, `api_key`, `HF_TOKEN`, `Authorization`; not for `prompt_tokens`."""
    return _SECRET.search(key) is not None


def mask_secrets(_: Any, __: str, event: EventDict) -> EventDict:
    """A structlog processor: values under secret names become `***`, in mappings inside values as well."""
    for key, value in event.items():
        event[key] = MASK if is_secret(key) and value else _masked(value, depth=3)
    return event


def _masked(value: Any, *, depth: int) -> Any:
    if depth and isinstance(value, Mapping):
        return {
            key: MASK if is_secret(str(key)) and inner else _masked(inner, depth=depth - 1)
            for key, inner in value.items()
        }
    return value


# -- the standard library's loggers ----------------------------------------------------------------


class _ToStructlog(logging.Handler):
    """Hands records of other libraries to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            extra: dict[str, Any] = {"exc_info": record.exc_info} if record.exc_info else {}
            # structlog knows the five named levels only; libraries invent others in between.
            level = max(10, min(50, record.levelno // 10 * 10))
            structlog.get_logger(record.name).log(level, record.getMessage(), **extra)
        except Exception:  # noqa: BLE001 - logging's own contract: a broken record never reaches the code that logs
            self.handleError(record)


def _adopt_stdlib(threshold: int) -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _ToStructlog):
            root.removeHandler(handler)
    root.addHandler(_ToStructlog())
    # Other people's info lines (every HTTP request of a probe) are our debug lines.
    root.setLevel(threshold if threshold <= logging.DEBUG else max(threshold, logging.WARNING))
    # What their transports do byte by byte is nobody's debug line here: a dozen lines for each probe.
    logging.getLogger("httpcore").setLevel(max(threshold, logging.INFO))
    logging.captureWarnings(True)
