"""The login form, as far as it is not a browser's."""

from __future__ import annotations

import pytest

from router.control.login import _key_in


@pytest.mark.parametrize(
    ("form", "key"),
    [
        (b"key=k", "k"),
        (b"a=1&key=k+k", "k k"),
        (b"", ""),
        (b"\xff\xfe", ""),
        (b"key=k&" + b"a=1&" * 8, ""),  # more fields than any form of ours has
    ],
)
def test_the_key_in_a_form(form: bytes, key: str) -> None:
    assert _key_in(form) == key
