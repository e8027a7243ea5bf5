"""The state directory: one daemon holds it for life, and everything private of that daemon lies in it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from supervisor.errors import AlreadyRunningError

SOCKET_PATH_BYTES = 103
"""sockaddr_un holds 108 bytes on Linux, 104 on macOS, one of them for the end."""
SOCKET_SUFFIX = "/12345678/s"
"""What the launcher appends to the run directory, in length."""


def private_folder(path: Path) -> Path:
    """*path* as a folder of ours that nobody else may enter, made if need be.

    Raises PermissionError when it is somebody else's, a link or no folder: in a shared temporary directory
    that is how another user would get our sockets and keys.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(
            errno.EPERM,
            f"not a folder of uid {os.geteuid()} (owner: uid {found.st_uid}): remove it or set state_dir",
            str(path),
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        path.chmod(0o700)
    return path


def run_dir_for(state_dir: Path, environ: Mapping[str, str]) -> Path:
    """Where this state directory's sockets go: in it, or, when its path is too long for a socket's address,
    in $XDG_RUNTIME_DIR, or in a folder of ours in the temporary directory. The same every time."""
    own = state_dir / "run"
    if len(os.fsencode(own)) + len(SOCKET_SUFFIX) <= SOCKET_PATH_BYTES:
        return own
    mark = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and len(os.fsencode(runtime)) <= 60 and Path(runtime).is_dir():
        return Path(runtime) / f"modelyard-{mark}"
    return Path(tempfile.gettempdir()) / f"modelyard-{os.geteuid()}-{mark}"


class StateDir:
    """A locked state directory. The lock is the process's: it ends with it, whatever ends it."""

    def __init__(self, path: Path, lock_fd: int, run_dir: Path) -> None:
        self.path = path
        self.run_dir = run_dir
        """0700; one folder per shim."""
        self.log_dir = private_folder(path / "logs")
        self.journal_file = path / "state.sqlite"
        self._lock_fd = lock_fd

    @classmethod
    def acquire(cls, path: Path, *, environ: Mapping[str, str] | None = None) -> StateDir:
        """Make it (0700), lock it and leave our pid in it.

        Raises AlreadyRunningError naming the other's pid when a daemon holds it, OSError (with the path)
        when it cannot be made or is not ours.
        """
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = private_folder(path.resolve())
        # Never inherited: neither an engine nor a shim may hold the lock of a dead daemon.
        fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            who = f"pid {holder}" if holder.isdigit() else "another process"
            raise AlreadyRunningError(
                f"a daemon is running already: {who} holds {path}; stop it, or set another state_dir"
            ) from None
        run_dir = private_folder(run_dir_for(path, os.environ if environ is None else environ))
        state = cls(path, fd, run_dir)
        state.sign()
        return state

    @classmethod
    def take_over(cls, path: Path, lock: int, *, environ: Mapping[str, str] | None = None) -> StateDir:
        """The state directory of a daemon that handed us its *lock*, which was never free in between.

        Raises OSError when *path* is another directory than the one that is locked by it.
        """
        path = private_folder(path.resolve())
        if not os.path.samestat((path / "lock").stat(), os.fstat(lock)):
            raise OSError(f"{path} is not the state directory of the daemon that hands over: stop it instead")
        return cls(path, lock, private_folder(run_dir_for(path, os.environ if environ is None else environ)))

    def sign(self) -> None:
        """Leave our pid in the lock file, for whoever finds it locked."""
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)

    @property
    def lock(self) -> int:
        """The locked descriptor, for a successor."""
        return self._lock_fd

    def release(self) -> None:
        """Give the lock back; the second call does nothing. The file stays: removing it would race."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
