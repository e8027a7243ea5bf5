"""Logging: formats, secrets, other libraries, and a reader that does not read."""

from __future__ import annotations

import io
import json
import logging
import threading
import warnings
from collections.abc import Iterator

import pytest
import structlog

from router.logs import PENDING_LIMIT, Format, Level, LineSink, choose_format, configure_logging, is_secret


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream; afterwards logging is as pytest had it."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield io.StringIO()
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.setLevel(level)
    root.handlers[:] = handlers


def logged(stream: io.StringIO, style: Format = "json", level: Level = "info") -> LineSink:
    return configure_logging(style=style, level=level, stream=stream, colours=False)


def test_json_is_one_object_per_line_with_its_logger(stream: io.StringIO) -> None:
    sink = logged(stream)
    structlog.get_logger("modelyard.x").info("instance_ready", port=41000, text="a\nb")
    sink.close()
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["logger"]) == ("instance_ready", "info", "modelyard.x")
    assert (entry["port"], entry["text"]) == (41000, "a\nb")
    assert entry["time"].endswith("Z")


def test_console_is_for_people(stream: io.StringIO) -> None:
    sink = logged(stream, "console")
    structlog.get_logger("modelyard.x").warning("instance_slow", port=41000)
    sink.close()
    text = stream.getvalue()
    assert "instance_slow" in text
    assert "port=41000" in text
    assert "\x1b" not in text


def test_loggers_made_before_the_configuration_follow_it(stream: io.StringIO) -> None:
    early = structlog.get_logger("early")
    sink = logged(stream)
    early.info("hello")
    sink.close()
    assert '"early"' in stream.getvalue()


def test_the_level_is_kept(stream: io.StringIO) -> None:
    sink = logged(stream, level="warning")
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    sink.close()
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_tracebacks_are_kept_without_the_values_of_variables(stream: io.StringIO) -> None:
    sink = logged(stream, "console")

    def fail(password: str) -> int:
        return len(password) // 0

    try:
        fail("hunter" + "2")
    except ZeroDivisionError:
        structlog.get_logger("x").exception("task_crashed")
    sink.close()
    assert "ZeroDivisionError" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize("style", ["console", "json"])
def test_secrets_are_masked_also_inside(stream: io.StringIO, style: Format) -> None:
    sink = logged(stream, style)
    structlog.get_logger("x").info(
        "spawned", key="hunter2", env={"HF_TOKEN": "hunter2", "PATH": "/bin", "deep": {"api_key": "hunter2"}}
    )
    sink.close()
    assert "hunter2" not in stream.getvalue()
    assert "/bin" in stream.getvalue()


@pytest.mark.parametrize(
    "name",
    ["key", "api_key", "apiKey", "x-api-key", "HF_TOKEN", "Authorization", "db_password", "set-cookie"],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["prompt_tokens", "monkey", "keys", "tokenizer", "event", "keyboard", "token_count"]
)
def test_names_of_other_things(name: str) -> None:
    assert not is_secret(name)


def test_other_libraries_come_out_the_same_way(stream: io.StringIO) -> None:
    sink = logged(stream)
    try:
        int("no number")
    except ValueError:
        logging.getLogger("asyncio").exception("Task %s failed", "t1")
    logging.getLogger("odd").log(35, "between the levels")
    logging.getLogger("httpx").info("HTTP Request: GET http://127.0.0.1")
    sink.close()
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["logger"], first["level"]) == ("Task t1 failed", "asyncio", "error")
    assert "ValueError: invalid literal" in first["exception"]
    assert second["event"] == "between the levels"


def test_python_warnings_come_out_too(stream: io.StringIO) -> None:
    sink = logged(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("careful", UserWarning, stacklevel=1)
    sink.close()
    assert "careful" in stream.getvalue()


def test_configuring_twice_does_not_double_lines(stream: io.StringIO) -> None:
    logged(stream).close()
    sink = logged(stream)
    logging.getLogger("lib").warning("once")
    sink.close()
    assert stream.getvalue().count("once") == 1


@pytest.mark.parametrize(
    ("wanted", "is_tty", "environ", "expected"),
    [
        ("auto", True, {}, "console"),
        ("auto", False, {}, "json"),
        ("auto", True, {"INVOCATION_ID": "x"}, "json"),
        ("auto", True, {"JOURNAL_STREAM": "8:1"}, "json"),
        ("console", False, {"INVOCATION_ID": "x"}, "console"),
        ("json", True, {}, "json"),
    ],
)
def test_auto_is_console_only_where_somebody_reads(
    wanted: str, is_tty: bool, environ: dict[str, str], expected: str
) -> None:
    assert choose_format(wanted, is_tty=is_tty, environ=environ) == expected  # type: ignore[arg-type]  # from a table


# -- the sink


class StuckStream(io.StringIO):
    """A terminal stopped with Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.stuck = threading.Event()

    def write(self, text: str) -> int:
        """Waits for Ctrl-Q."""
        self.stuck.set()
        assert self.go_on.wait(10)
        return super().write(text)


def test_a_stopped_terminal_costs_lines_and_not_the_daemon() -> None:
    stream = StuckStream()
    sink = LineSink(stream)
    sink.write("first\n")
    assert stream.stuck.wait(10)
    block = "x" * (PENDING_LIMIT // 4 - 1) + "\n"
    for _ in range(10):
        sink.write(block)
    stream.go_on.set()
    sink.close(10)
    text = stream.getvalue()
    assert text.startswith("first\n")
    assert len(text) < PENDING_LIMIT + 1000
    assert text.endswith("[7 log lines dropped: the log's reader is too slow]\n")


class GoneStream(io.StringIO):
    """A pipe whose reader has left."""

    def write(self, text: str) -> int:
        """As the kernel says it."""
        raise BrokenPipeError


def test_a_reader_that_left_ends_nothing() -> None:
    sink = LineSink(GoneStream())
    sink.write("x\n")
    sink.close(10)
    sink.close(10)
    sink.write("after the end\n")
