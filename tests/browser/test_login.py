"""Keys in a browser: the login form, what a session may do, and the way out."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from config.keys import hash_of, new_key
from tests.support.browser import Page
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted

pytestmark = [pytest.mark.process, pytest.mark.browser, pytest.mark.timeout(120)]

ADMIN, GUEST = new_key(), new_key()
KEYS = {
    "ops": {"hash": hash_of(ADMIN), "scope": "admin"},
    "guest": {"hash": hash_of(GUEST), "scope": "inference"},
}


def log_in(page: Page, key: str) -> None:
    """Type it into the form."""
    page.until("document.getElementById('key') !== null && document.readyState === 'complete'")
    page.run("document.getElementById('key').focus()")
    page.type(key)
    page.press("Enter")


def state_of(daemon: RunningDaemon, model: str) -> str:
    answer = httpx.get(f"{daemon.url}/api/models/{model}", headers={"Authorization": f"Bearer {ADMIN}"})
    return str(answer.json()["state"])


def test_an_admin_logs_in_acts_and_logs_out(page: Page, tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}, "keys": KEYS}) as daemon:
        page.open(f"{daemon.url}/status")
        page.until("location.pathname === '/login'")
        page.sees("modelyard key add")

        log_in(page, "my-wrong-key")
        page.sees("this key is not known here")
        log_in(page, GUEST)
        page.sees("this takes a key of the admin scope")
        log_in(page, ADMIN)
        page.until("location.pathname === '/status'")
        page.sees("ops")
        assert page.run("document.cookie") == ""  # no script can read the session
        page.sees("Authorization: Bearer $MODELYARD_API_KEY")

        page.click('button[aria-label="Load a"]')
        page.until("document.querySelector('.model .pill')?.innerText === 'ready'")
        assert state_of(daemon, "a") == "ready"
        page.click('button[aria-label="Log a"]')
        page.until("document.querySelectorAll('.line').length > 0")
        page.until("document.getElementById('log-state').innerText === ''")

        # The cookie alone is not enough: a page on another port is of the same site, and would send it.
        forged = page.run("fetch('/api/models/a/unload?wait=0', {method: 'POST'}).then(r => r.status)")
        assert forged == 403
        assert state_of(daemon, "a") == "ready"

        page.click("#log-out")
        page.until("location.pathname === '/login'")
        page.open(f"{daemon.url}/status")
        page.until("location.pathname === '/login'")


def test_a_session_that_ends_says_so_and_leads_to_the_form(page: Page, tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}, "keys": KEYS}) as daemon:
        page.open(f"{daemon.url}/status")
        log_in(page, ADMIN)
        page.until("location.pathname === '/status'")
        page.sees("serving")
        assert daemon.stop() == 0
        page.sees("no connection")
        daemon.start()  # a new daemon, a new secret: every session has ended
        page.sees("Your session has ended", within=30)
        page.sees("logged out")
        page.click("#alarm a")
        page.until("location.pathname === '/login'")
        log_in(page, ADMIN)
        page.until("location.pathname === '/status'")
        page.sees("serving")
        assert eventually(lambda: state_of(daemon, "a") == "stopped")


def test_an_action_after_the_session_ended_says_how_to_go_on(page: Page, tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}, "keys": KEYS}) as daemon:
        page.open(f"{daemon.url}/status")
        log_in(page, ADMIN)
        page.until("location.pathname === '/status'")
        page.sees("Nothing is loaded")
        page.browser.call("Storage.clearCookies")
        page.click('button[aria-label="Load a"]')
        page.sees("this daemon wants a key")
        page.until("document.querySelector('#complaint a')?.getAttribute('href') === '/login'")
        page.press("Escape")
        page.until("document.getElementById('complaint').hidden")
        assert state_of(daemon, "a") == "stopped"
