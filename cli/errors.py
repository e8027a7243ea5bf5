"""What can go wrong at the command line, and the exit status for each."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Exit statuses; those above 63 are the ones of BSD's sysexits."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    CHANGES = 3
    """`config plan --exit-code`: something would change. Not 2: that is a mistyped option."""
    UNREACHABLE = 69
    """No daemon answers (EX_UNAVAILABLE)."""
    ALREADY_RUNNING = 75
    """Another daemon, or another install of the same engine, holds the lock (EX_TEMPFAIL)."""
    CONFIG = 78
    """The configuration is wrong (EX_CONFIG)."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it."""


class CliError(Exception):
    """Something the operator can act on: printed as one line on stderr, without a traceback."""

    def __init__(self, message: str, status: Status = Status.FAILURE) -> None:
        super().__init__(one_line(message))
        self.status = status


def one_line(text: str) -> str:
    """*text* with its lines joined: by a blank where a line ends in punctuation, else by a semicolon."""
    joined = ""
    for line in text.splitlines():
        words = " ".join(line.split())
        if words:
            joined += f"{'' if not joined else ' ' if joined[-1] in '.,:;!?' else '; '}{words}"
    return joined


class RefusedError(CliError):
    """The daemon answered with an error; `code` is the stable one of its envelope, or ""."""

    def __init__(self, message: str, *, code: str = "", http_status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status
