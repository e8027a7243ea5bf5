"""Keys at rest: how one is made and hashed, and the file that `modelyard key` writes and the daemon reads.

A key is 256 bits of randomness, so its hash is one SHA-256. Slow hashes (scrypt, argon2) exist because people
choose passwords that can be guessed; nobody guesses 256 bits, at any speed, and a slow hash would have to be
paid for with every request. For the same reason there is no salt: no two keys are equal, and no table holds
them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from config import places
from config.errors import ConfigError, Problem
from config.quantities import Moment
from config.schema import KeyConfig, KeyName, Settings
from config.units import write_moment

PREFIX: Final = "myk-"
"""Of every key we make: scanners for leaked secrets, and people, recognise it."""
KEY_BYTES: Final = 32
FILE_NAME: Final = "keys.json"
VERSION: Final = 1
MAX_FILE_BYTES: Final = 4 * 2**20
"""Ten thousand keys take 3 MB."""


class StoredKey(KeyConfig):
    """An entry of the keys file."""

    created: Moment | None = None
    """When it was added."""


Stamp = tuple[int, int, int, int]
"""What differs between two versions of a file: inode, size, and the times of its content and its entry."""

_entries = TypeAdapter(dict[KeyName, StoredKey])


def new_key() -> str:
    """A fresh key: 256 random bits in characters that need no quotes anywhere."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def hash_of(key: str) -> str:
    """What is kept of *key*: `sha256:<hex>`."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def digest_in(entry: KeyConfig) -> bytes:
    """The 32 bytes of *entry*'s hash."""
    return bytes.fromhex(entry.hash.removeprefix("sha256:"))


def keys_file(settings: Settings, env: Mapping[str, str]) -> Path:
    """Where keys are kept: `keys_file`, else `keys.json` in the state directory."""
    return settings.keys_file or (settings.state_dir or places.state_dir(env)) / FILE_NAME


# -- reading ---------------------------------------------------------------------------------------


def stamp_of(path: Path) -> Stamp | None:
    """Changes with the file; None when there is none. Blocks; raises ConfigError when it cannot be seen."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_keys(path: Path) -> dict[str, StoredKey] | None:
    """The keys in *path* by name; None when there is no such file. Blocks.

    Raises ConfigError for a file that cannot be read, is none of ours, or that others may write: none of
    these may be taken for "no keys". No message has anything of the content in it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    if stat.S_IMODE(mode) & 0o022:
        raise ConfigError(Problem(str(path), f"other accounts may write to it: chmod 600 {path}"))
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(Problem(str(path), "larger than 4 MiB; is this the right keys file?"))
    try:
        document = json.loads(raw)
    except ValueError:
        document = None
    version = document.get("version") if isinstance(document, dict) else None
    if version != VERSION:
        raise ConfigError(Problem(str(path), f"no keys file of version {VERSION}; is it the right file?"))
    try:
        return _entries.validate_python(document.get("keys"))
    except ValidationError as error:
        where = [".".join(str(part) for part in one["loc"][:2]) for one in error.errors(include_input=False)]
        what = f"this entry is not one that `modelyard key` wrote: {', '.join(sorted(set(where))[:5])}"
        raise ConfigError(Problem(str(path), what)) from None


def _unreadable(path: Path, error: OSError) -> ConfigError:
    what = f"cannot be read: {error.strerror or error}; it has to belong to the account that runs the daemon"
    return ConfigError(Problem(str(path), what))


# -- writing ---------------------------------------------------------------------------------------


@contextmanager
def editing(path: Path) -> Iterator[dict[str, StoredKey]]:
    """The keys in *path*, to be changed: written when the block ends without an error. Blocks.

    Two at the same time follow one another. Whoever reads meanwhile sees the old file or the new one, whole.
    Raises ConfigError as `read_keys`, OSError when it cannot be written.
    """
    path = Path(os.path.realpath(path))  # the file that a link names, not the link, is replaced
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = read_keys(path) or {}
        yield keys
        _replace(path, _text(keys))
        os.fsync(folder)  # else a power cut may bring a revoked key back
    finally:
        os.close(folder)


def entry_of(key: KeyConfig) -> dict[str, Any]:
    """*key* as it is written, without what is unset."""
    found = key.model_dump(exclude_none=True)
    for name in ("expires", "created"):
        if name in found:
            found[name] = write_moment(found[name])
    return found


def _text(keys: Mapping[str, StoredKey]) -> str:
    document = {"version": VERSION, "keys": {name: entry_of(key) for name, key in sorted(keys.items())}}
    return json.dumps(document, indent=2) + "\n"


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    owner = path.stat() if path.exists() else path.parent.stat()
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            if os.geteuid() == 0:
                # Edited by root, it stays readable for the account that runs the daemon.
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
