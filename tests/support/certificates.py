"""Certificates for tests, and who believes in them."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


def issue(folder: Path, name: str = "localhost") -> tuple[dict[str, str], ssl.SSLContext]:
    """A certificate for *name* and 127.0.0.1 with its key as `tls:` wants them, and who believes in it."""
    authority = trustme.CA()
    made = authority.issue_cert(name, "127.0.0.1")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    key.write_bytes(made.private_key_pem.bytes())
    key.chmod(0o600)
    certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return {"certificate": str(certificate), "key": str(key)}, context
