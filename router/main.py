"""`modelyard serve`: from the command line to a running daemon and back to an exit status."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import uvloop

from config.errors import ConfigError
from config.load import Draft, Loaded, find_config, load_draft, load_settings
from config.schema import Settings
from router.logs import choose_format, configure_logging
from supervisor.errors import AlreadyRunningError

if TYPE_CHECKING:
    from router.wiring import Daemon

log = structlog.get_logger("modelyard")

EXIT_FAILURE: Final = 1
EXIT_ALREADY_RUNNING: Final = 75
"""EX_TEMPFAIL of sysexits.h: another daemon holds the state directory."""
SWITCH_SECONDS: Final = 0.0005
"""How long a thread of ours (reading checkpoints, rendering metrics) may keep the event loop waiting for the
interpreter; Python's own 5 ms are as long as a token may wait for anything."""
YOUNG_OBJECTS: Final = 2_500
"""Objects made before the youngest are looked through for garbage: requests leave none in circles, and with
hundreds of them open Python's own 700 would mean a look at them for every few."""
EXIT_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h."""


PASSED_ON: Final = frozenset({signal.SIGTERM, signal.SIGHUP})
"""Signals that reach a successor through whoever stands in for its predecessor."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line says; None leaves it to the configuration."""

    config: Path | None = None
    listen: str | None = None
    state_dir: Path | None = None
    log_format: str | None = None
    log_level: str | None = None
    version: str = "0"
    """Of the program, for /status and metrics."""
    demo_dir: Path | None = None
    """`demo/models` of a source checkout."""


def serve(options: ServeOptions) -> int:
    """Run the daemon until it is told to stop; returns the exit status.

    0 after a clean stop, 75 when another daemon holds the state directory, 78 for a configuration that cannot
    be used, 1 for anything else that keeps it from serving. One line on standard error says which.
    """
    try:
        loaded = _settings(options)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    settings = loaded.settings
    style = choose_format(settings.log.format, is_tty=sys.stderr.isatty(), environ=os.environ)
    sink = configure_logging(style=style, level=settings.log.level)
    from router.leaving import stand_in  # what costs import time comes after the configuration
    from router.wiring import Daemon, Origin

    sys.setswitchinterval(SWITCH_SECONDS)

    try:
        origin = Origin(partial(_settings, options), version=options.version, demo_dir=options.demo_dir)
        daemon = Daemon(loaded, origin, sink=sink, style=style)
        uvloop.run(_run(daemon))
    except AlreadyRunningError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_ALREADY_RUNNING
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_FAILURE
    finally:
        sink.close()
    if daemon.stands_in and daemon.leaving.successor is not None:
        stand_in(daemon.leaving.successor.pid)
    return 0


def _settings(options: ServeOptions, draft: Draft | None = None) -> Loaded:
    """The settings of the file, or of *draft*, with what the command line says in their place.

    Raises ConfigError.
    """
    if draft is None:
        loaded = load_settings(find_config(options.config, os.environ, Path.cwd()), os.environ)
    else:
        loaded = load_draft(draft, os.environ)
    settings = loaded.settings
    over: dict[str, object] = {}
    if options.listen is not None:
        over["listen"] = Settings(listen=options.listen).listen
    if options.state_dir is not None:
        over["state_dir"] = options.state_dir.absolute()
    logs = {k: v for k, v in (("format", options.log_format), ("level", options.log_level)) if v is not None}
    if logs:
        over["log"] = settings.log.model_copy(update=logs)
    return replace(loaded, settings=settings.model_copy(update=over))


async def _run(daemon: Daemon) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    asked = 0

    def told(signum: int) -> None:
        nonlocal asked
        asked += 1
        if daemon.stands_in and signum == signal.SIGTERM and daemon.leaving.successor is not None:
            os.kill(daemon.leaving.successor.pid, signum)
        log.info("signal_received", signal=signal.Signals(signum).name)
        if asked == 1:
            stop.set()
        else:
            # A person who presses Ctrl-C twice does not want to wait for a long answer.
            daemon.hurry()

    on_terminal = sys.stderr.isatty()

    def hung_up() -> None:
        # One signal for two things: somebody wants a reload, or the terminal was closed and nobody is there.
        if on_terminal and not sys.stderr.isatty():
            told(signal.SIGHUP)
        else:
            daemon.reloading.ask()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, told, signum)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    try:
        await daemon.start()
        # What a daemon is made of lives as long as it does: looking through it again for garbage costs tens
        # of milliseconds with some hundred models, in the middle of everybody's tokens.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)
        await daemon.run_until(stop)
    finally:
        await daemon.stop()
        if daemon.stands_in:
            # The loop takes its handlers with it: a signal waits until the stand-in has its own.
            signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
