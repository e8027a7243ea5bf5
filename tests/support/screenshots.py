"""The pictures of the status page in the documents: `make screenshots`.

Nothing is posed but the moment: a real daemon, the two demo models in mlx-lm, clients that keep asking.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from tests.support.browser import Browser, Page
from tests.support.real_engines import ENGINES
from tests.support.running_daemon import ROOT, RunningDaemon
from tests.support.yard import QUESTIONS

IMAGES = ROOT / "docs" / "images"
CLIENTS = 3
WITH_USAGE = {"include_usage": True}
FIRST, SECOND = "yard-demo", "yard-foreman"
PORT = 8080
"""The documents say so; must be free."""
LOADS_HALF_WAY = "document.querySelector('.track:not([data-unknown])')?.ariaValueNow > 35"


@contextmanager
def clients(daemon: RunningDaemon) -> Iterator[None]:
    """Programs that ask the first model one question after the other."""
    over = threading.Event()

    def ask() -> None:
        for question in itertools.cycle(QUESTIONS):
            if over.is_set():
                return
            with (
                suppress(httpx.HTTPError),
                daemon.stream(FIRST, question, stream_options=WITH_USAGE) as answer,
            ):
                answer.read()

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def take(page: Page, daemon: RunningDaemon) -> None:
    """Both pictures, each of the moment in which the second model is half loaded."""
    for name, dark in (("status.png", False), ("status-dark.png", True)):
        page.theme(dark=dark)
        httpx.post(f"{daemon.url}/api/models/{SECOND}/unload", timeout=60)
        httpx.post(f"{daemon.url}/api/models/{SECOND}/load?wait=0")
        page.until(LOADS_HALF_WAY, within=60)
        page.screenshot(IMAGES / name, whole=False)


def main() -> None:
    """Write them."""
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, Browser(Path(folder) / "browser") as browser:
        settings = {"discover": {"hub_cache": False, "demo": True}}
        env = {"MODELYARD_ENGINES": str(ENGINES)}
        with RunningDaemon(Path(folder) / "daemon", settings, env=env, port=PORT) as daemon:
            # Started once, so that the daemon has learned how long it takes.
            httpx.post(f"{daemon.url}/api/models/{SECOND}/load", timeout=120).raise_for_status()
            page = browser.page(width=1400, height=760)
            page.open(f"{daemon.url}/status")
            with clients(daemon):
                page.until("/[1-9]/.test(document.querySelector('[data-key=\"Requests/s\"] dd')?.innerText)")
                take(page, daemon)


if __name__ == "__main__":
    main()
