"""The front's certificate: read, judged, and read again while connections stay open."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from config.errors import ConfigError, Problem
from config.listening import SECURE, TlsConfig
from config.load import Loaded


def certificate_of(loaded: Loaded) -> ssl.SSLContext | None:
    """What new connections are shown; None where no address speaks TLS. Raises ConfigError."""
    tls, where = loaded.settings.tls, str(loaded.path or "--listen")
    secure = any(address.startswith(SECURE) for address in loaded.settings.addresses)
    if secure and tls is None:
        raise _wrong(where, "listen", "an address with https:// needs tls:, a certificate and its key")
    if tls is None:
        return None
    if not secure:
        raise _wrong(where, "tls", "no address speaks it: write https:// before one under listen:")
    return _context(tls, where)


def renew(context: ssl.SSLContext | None, tls: TlsConfig | None) -> None:
    """Show new connections the certificate as it is now, which `certificate_of` has just found usable; those
    that are open keep what they were shown."""
    if context is not None and tls is not None:
        context.load_cert_chain(tls.certificate, tls.key)


def _context(tls: TlsConfig, where: str) -> ssl.SSLContext:
    _look_at_key(tls.key, where)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        with tls.certificate.open("rb"):
            pass  # the error of the next line does not say which of the two it is about
        # Without a passphrase: nobody is there to type one.
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: b"")
    except ssl.SSLError as error:
        what = (
            "does not belong to the certificate" if "MISMATCH" in str(error) else f"cannot be used: {error}"
        )
        raise _wrong(where, "tls.key", f"{tls.key} {what} ({tls.certificate})") from error
    except OSError as error:
        raise _wrong(where, "tls.certificate", f"{tls.certificate}: {error.strerror or error}") from error
    return context


def _look_at_key(key: Path, where: str) -> None:
    try:
        mode = key.stat().st_mode
        with key.open("rb"):
            pass
    except OSError as error:
        raise _wrong(where, "tls.key", f"{key}: {error.strerror or error}") from error
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        what = f"{key} is everybody's to read or others' to write: chmod 600 it, and make a new key if it was"
        raise _wrong(where, "tls.key", what)


def _wrong(where: str, key: str, what: str) -> ConfigError:
    return ConfigError(Problem(where, what, key=key))
