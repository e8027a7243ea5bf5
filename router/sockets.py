"""The sockets the daemon listens on: made, named, judged, and given back."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from config.listening import SECURE, UNIX, parse_listen
from config.schema import Settings
from router.control.guard import is_loopback


def listening_sockets(settings: Settings) -> tuple[socket.socket, ...]:
    """All that `listen` names, or none of them. Raises OSError that says which, and what to do."""
    found: list[socket.socket] = []
    for address in settings.addresses:
        try:
            if address.startswith(UNIX):
                found.append(unix_socket(address.removeprefix(UNIX), int(settings.socket_mode, 8)))
            else:
                found.append(listening_socket(*parse_listen(address)))
        except OSError as error:
            for listener in found:
                listener.close()
            raise OSError(
                f"cannot listen on {address}: {error.strerror or error}; "
                "stop what holds it, or choose another address with --listen or listen:"
            ) from error
    return tuple(found)


def listening_socket(host: str, port: int) -> socket.socket:
    """A non-blocking socket listening on *host*:*port*. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # So that a restart does not wait for the connections of the last run (TIME_WAIT).
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `[::]` beside `0.0.0.0` are two addresses, whatever this machine's default is.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind((host, port))
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener


def unix_socket(path: str, mode: int) -> socket.socket:
    """A non-blocking socket listening at *path*, which *mode* says who may connect to.

    A socket file that nobody listens at any more is replaced. Raises OSError where somebody does, or where
    something else lies there.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        # Nobody may connect between bind and chmod: the file begins as this account's alone.
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        Path(path).chmod(mode)
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError("something lies there that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # somebody listens, and has no time
    raise OSError("another process listens there")


def remove_socket_files(addresses: Sequence[str]) -> None:
    """Remove the files that `listening_sockets` made for *addresses*; not after a successor has taken them
    over."""
    for address in addresses:
        if address.startswith(UNIX):
            with contextlib.suppress(OSError):
                Path(address.removeprefix(UNIX)).unlink()


def speaks_tls(listener: socket.socket, settings: Settings) -> bool:
    """Whether *listener*, made here or passed to us, is one of the addresses that speak TLS."""
    if listener.family == socket.AF_UNIX:
        return False
    ports = {parse_listen(address)[1] for address in settings.addresses if address.startswith(SECURE)}
    return listener.getsockname()[1] in ports


def address_of(listener: socket.socket, settings: Settings | None = None) -> str:
    """`host:port`, `https://host:port` or `unix:path`, as a person writes it."""
    name = listener.getsockname()
    if isinstance(name, str):
        return f"{UNIX}{name}"
    scheme = SECURE if settings is not None and speaks_tls(listener, settings) else ""
    return f"{scheme}[{name[0]}]:{name[1]}" if ":" in name[0] else f"{scheme}{name[0]}:{name[1]}"


def port_of(addresses: Sequence[str]) -> int:
    """The port of the first that has one; else 0."""
    return next((parse_listen(one)[1] for one in addresses if not one.startswith(UNIX)), 0)


def is_local(address: str) -> bool:
    """Only this machine reaches *address*, as `address_of` writes it."""
    return address.startswith(UNIX) or is_loopback(address.removeprefix(SECURE))
