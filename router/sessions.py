"""A browser's session: a signed cookie that stands for a key until it expires. Pure; nothing is kept here.

    <name of the key> . <expiry, Unix seconds> . <HMAC-SHA-256 over both and the key's hash>

The hash is signed and not said: a key that is revoked, or replaced by another of its name, takes its sessions
with it. The secret is random and the process's own: a restarted daemon asks everybody to log in again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

SESSION_SECONDS: Final = 12 * 3600.0
"""A working day: who leaves the page open in the evening logs in once the next morning."""


class Sessions:
    """Makes and reads cookies named *cookie*, signed with *secret*."""

    def __init__(self, secret: bytes, *, cookie: str) -> None:
        self._secret = secret
        self.cookie = cookie
        """Cookies know hosts and no ports: two daemons on one machine need two names."""
        self._start = cookie.encode() + b"="

    def issue(self, name: str, digest: bytes, now: float) -> str:
        """The cookie's value for the key of that name and hash."""
        expires = str(int(now + SESSION_SECONDS))
        return f"{name}.{expires}.{self._sign(name, expires, digest)}"

    def name_in(self, value: str, digest_of: Callable[[str], bytes | None], now: float) -> str | None:
        """The key a cookie's value stands for; None unless we signed it for that key and it still holds."""
        name, _, rest = value.rpartition(".")
        name, _, expires = name.rpartition(".")
        digest = digest_of(name)
        if digest is None or not hmac.compare_digest(
            self._sign(name, expires, digest).encode(), rest.encode("latin-1", "replace")
        ):
            return None
        return name if float(expires) > now else None

    def value_in(self, field: bytes) -> str | None:
        """Our cookie's value in a Cookie field; the first where there are several."""
        for part in field.split(b";"):
            part = part.strip()
            if part.startswith(self._start):
                return part[len(self._start) :].decode("latin-1")
        return None

    def _sign(self, name: str, expires: str, digest: bytes) -> str:
        message = f"{name}\0{expires}\0".encode("utf-8", "replace") + digest
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
