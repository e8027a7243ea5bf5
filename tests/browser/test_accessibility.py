"""axe-core on what the page can look like, in both themes and at both ends of the widths it is made for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from config.keys import hash_of, new_key
from tests.support.browser import Page, axe
from tests.support.running_daemon import RunningDaemon, scripted

pytestmark = [pytest.mark.process, pytest.mark.browser, pytest.mark.timeout(240)]

LOOKS = [(1400, False), (1400, True), (400, False), (400, True)]
OPPOSITES = [(1400, False), (400, True)]
"""For what is the page with one part more."""


@pytest.fixture(scope="module")
def source() -> str:
    """axe-core itself."""
    return files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def check(page: Page, source: str, what: str, looks: Sequence[tuple[int, bool]] = LOOKS) -> None:
    """Nothing serious in any of the *looks*: width, and whether it is dark."""
    for width, dark in looks:
        page.resize(width)
        page.theme(dark=dark)
        assert axe(page, source) == [], f"{what} at {width}, {'dark' if dark else 'light'}"


def test_axe_would_find_something(page: Page, source: str, tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}) as daemon:
        page.open(f"{daemon.url}/status")
        page.sees("Nothing is loaded")
        page.run("document.body.append(document.createElement('button'))")
        assert any("button-name" in one for one in axe(page, source))


def test_a_busy_page_its_log_and_its_dialog(page: Page, source: str, tmp_path: Path) -> None:
    models = {
        "busy": scripted("--chunks", "6000", "--chunk-interval", "0.1", "--noise", "300", concurrency=1),
        "starting": scripted("--ready-after", "60", "--progress", "20"),
        "bad": scripted("--exit-at-start", "--stderr-line", "ValueError: no such quantisation"),
        "missing": {"source": "nobody/missing"},
        **{f"other-{number}": scripted() for number in range(6)},
    }
    with RunningDaemon(tmp_path, {"models": models, "start": {"backoff_first": "60s"}}) as daemon:
        page.open(f"{daemon.url}/status")
        for name in ("starting", "bad"):
            httpx.post(f"{daemon.url}/api/models/{name}/load?wait=0")

        def ask() -> None:
            with daemon.stream("busy") as answer:
                answer.read()

        askers = [threading.Thread(target=ask) for _ in range(2)]
        for asker in askers:
            asker.start()
        page.until("/Waiting\\s+1 for/.test(document.body.innerText)")
        page.sees("What to do:")
        page.click(".unusable summary")
        check(page, source, "the page")
        page.click('button[aria-label="Log busy"]')
        page.sees("noise line 299")
        page.click("#log-search")
        page.type("noise")
        check(page, source, "the log")
        page.press("Escape", "Escape")
        page.click('button[aria-label="Unload busy"]')
        page.until("document.getElementById('confirm').open")
        check(page, source, "the dialog", OPPOSITES)
        page.click("#confirm [data-danger]")
        page.click('button[aria-label="Stop now busy"]')
        page.click("#confirm [data-danger]")
        for asker in askers:
            asker.join()
        daemon.kill()
        page.sees("Connection lost")
        check(page, source, "a lost connection", OPPOSITES)
        daemon.start()
        daemon.stop()


def test_an_empty_page_and_the_login_form(page: Page, source: str, tmp_path: Path) -> None:
    with RunningDaemon(tmp_path / "empty", {}) as daemon:
        page.open(f"{daemon.url}/status")
        page.sees("No models yet")
        check(page, source, "no models")
    keys = {"ops": {"hash": hash_of(new_key()), "scope": "admin"}}
    with RunningDaemon(tmp_path / "keys", {"keys": keys}) as daemon:
        page.open(f"{daemon.url}/login")
        page.run("document.getElementById('key').focus()")
        page.type("wrong")
        page.press("Enter")
        page.sees("this key is not known here")
        check(page, source, "the login form")
