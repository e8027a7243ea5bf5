"""Where the front listens: `127.0.0.1:8080`, `https://0.0.0.0:8443`, `unix:/run/modelyard.sock`. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator

from config.section import Section

UNIX: Final = "unix:"
SECURE: Final = "https://"
LONGEST_PATH: Final = len(UNIX) + 100
"""sockaddr_un has room for 104 on a Mac."""
MOST_ADDRESSES: Final = 16
"""As many sockets as a service manager may pass, and a successor is handed."""


def parse_listen(value: str) -> tuple[str, int]:
    """(host, port) of `127.0.0.1:8080`, `[::1]:8080` or `:8080` (all interfaces), with or without `https://`;
    else ValueError."""
    host, colon, port = value.strip().removeprefix(SECURE).rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or (":" in host and bare == host) or any(c.isspace() or c in "[]/" for c in bare):
        raise ValueError(f"{value!r} is not an address: write '127.0.0.1:8080' or '[::1]:8080'")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{value!r} has no port between 0 and 65535: write '127.0.0.1:8080'")
    return bare or "0.0.0.0", int(port)


def _check(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    addresses = (value,) if isinstance(value, str) else value
    if not 0 < len(addresses) <= MOST_ADDRESSES or len(set(addresses)) < len(addresses):
        raise ValueError(f"name 1 to {MOST_ADDRESSES} addresses, each once")
    for address in addresses:
        if not address.startswith(UNIX):
            parse_listen(address)
        elif not address.startswith(UNIX + "/") or len(address.encode()) > LONGEST_PATH or "\0" in address:
            raise ValueError(f"{address!r} is no socket: write 'unix:' and a whole path of at most 100 bytes")
    return value


Listen = Annotated[str | tuple[str, ...], AfterValidator(_check)]


class TlsConfig(Section):
    """What addresses that begin with `https://` prove themselves with."""

    certificate: Path
    """PEM file: the certificate, then those that lead to its authority. Read again at a reload."""
    key: Path
    """PEM file with its private key, without a passphrase, which only this account (and its group) may
    read."""


def reached_at(address: str) -> tuple[str, str | None]:
    """(base URL, path of a Unix socket or None) under which a daemon at *address* is reached from here."""
    if address.startswith(UNIX):
        return "http://localhost", address.removeprefix(UNIX)
    host, port = parse_listen(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if address.startswith(SECURE) else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}", None
