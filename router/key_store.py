"""The keys in force, from where they are written: the configuration, and the file that `modelyard key` edits.

The file is looked at once a second, in a thread, and on SIGHUP; never for a request. What cannot be read
changes nothing: a daemon that had keys would otherwise be open to everybody because of a typing error.

| the keys file        | at the start, on SIGHUP         | seen by the timer              |
| is there, whole      | its keys are in force           | its keys are in force          |
| is there, unreadable | ConfigError: nothing is changed | logged once, nothing changes   |
| is not there         | only the configuration's keys   | logged once, nothing changes   |

Keys are off while there is neither a file nor a key in the configuration. A file without keys lets nobody in:
revoking the last key must not open the door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from config.errors import ConfigError
from config.keys import Stamp, StoredKey, digest_in, read_keys, stamp_of
from config.schema import KeyConfig
from router.auth import Auth
from router.keys import Key
from supervisor.ports import Clock, Timer
from supervisor.tasks import Spawn

log = structlog.get_logger("modelyard.keys")

EVERY: Final = 1.0
"""Seconds between two looks at the file: how long a revoked key may go on."""

Changed = Callable[[frozenset[str]], None]
"""Called after keys have changed, with the names that are gone or may do other things now."""


class KeyStore:
    """Keeps an `Auth` up to date. `await load` once before `start`; `close` it."""

    def __init__(self, auth: Auth, *, clock: Clock, spawn: Spawn, changed: Changed) -> None:
        self._auth = auth
        self._clock = clock
        self._spawn = spawn
        self._changed = changed
        self._path = Path()
        self._configured: Mapping[str, KeyConfig] = {}
        self._stored: Mapping[str, StoredKey] | None = None
        self._stamp: Stamp | None = None
        self._said = ""
        """The trouble that was last logged: once is enough."""
        self._timer: Timer | None = None
        self._looking = False

    async def load(self, path: Path, configured: Mapping[str, KeyConfig]) -> None:
        """Read *path* and put its keys and *configured* in force. Raises ConfigError, and changes nothing."""
        stamp, stored = await asyncio.to_thread(_read, path)
        self._path, self._configured = path, configured
        self._said = ""
        self._publish(stamp, stored)

    def start(self) -> None:
        """Look at the file from now on, until `close`."""
        self._timer = self._clock.call_later(EVERY, self._tick)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- inside ------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.start()
        if not self._looking:  # a slow disk gets no second question before it has answered the first
            self._looking = True
            self._spawn(self._look(), name="look at the keys file")

    async def _look(self) -> None:
        path = self._path
        try:
            stamp, stored = await asyncio.to_thread(_read_changed, path, self._stamp)
        except ConfigError as error:
            self._say("keys_unreadable", f"{error}; the keys read before stay in force")
            return
        finally:
            self._looking = False
        if path != self._path or stamp == self._stamp:
            return
        if stored is None:
            self._say("keys_file_gone", "its keys stay in force until the daemon is reloaded or restarted")
            return
        self._said = ""
        self._publish(stamp, stored)

    def _say(self, event: str, trouble: str) -> None:
        if self._said != trouble:
            self._said = trouble
            log.error(event, path=str(self._path), error=trouble)

    def _publish(self, stamp: Stamp | None, stored: Mapping[str, StoredKey] | None) -> None:
        self._stamp, self._stored = stamp, stored
        configured = self._configured
        if stored is None and not configured:
            keys = None
        else:
            for name in sorted((stored or {}).keys() & configured.keys()):
                log.warning(
                    "key_shadowed", key=name, path=str(self._path), remedy="it is in the configuration"
                )
            keys = [
                _key(name, entry, "file") for name, entry in (stored or {}).items() if name not in configured
            ]
            keys += [_key(name, entry, "config") for name, entry in configured.items()]
        was_on = self._auth.on
        gone = self._auth.publish(keys)
        if keys is not None:
            log.info("keys_loaded", path=str(self._path), keys=len(keys), changed=sorted(gone))
            if not keys:
                log.warning("keys_all_revoked", path=str(self._path), remedy="`modelyard key add` makes one")
        elif was_on:
            log.warning("keys_switched_off", path=str(self._path))
        self._changed(gone)


def _read(path: Path) -> tuple[Stamp | None, dict[str, StoredKey] | None]:
    # The stamp first: a file replaced between the two is read again by the next look.
    return stamp_of(path), read_keys(path)


def _read_changed(path: Path, known: Stamp | None) -> tuple[Stamp | None, dict[str, StoredKey] | None]:
    stamp = stamp_of(path)
    return (stamp, None) if stamp == known else (stamp, read_keys(path))


def _key(name: str, entry: KeyConfig, source: str) -> Key:
    return Key(
        name=name,
        digest=digest_in(entry),
        admin=entry.scope == "admin",
        models=None if entry.models is None else frozenset(entry.models),
        concurrency=entry.concurrency,
        priority=entry.priority,
        requests_per_minute=entry.requests_per_minute,
        expires=entry.expires,
        source=source,
    )
