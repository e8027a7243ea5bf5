"""The status page in a real browser, against a real daemon with scripted engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import CHROMIUM, Browser, Page


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One process for all tests; each has its own tab, and its own cookies as far as their names go."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install chromium or google-chrome to run the page's tests")
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh tab, in which no script may fail and nothing may be refused by the page's own policy."""
    opened = browser.page()
    yield opened
    errors = [error for error in opened.errors if not error.startswith("Failed to load resource")]
    opened.close()
    assert errors == []
