"""A headless Chromium, driven over its DevTools protocol through two pipes: no driver, no WebSocket.

`--remote-debugging-pipe` reads commands from descriptor 3 and writes answers and events to descriptor 4, each
a JSON document followed by a NUL. What a page's script throws or complains about is in `Page.errors`.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

DEADLINE_SECONDS = 20.0
POLL_SECONDS = 0.05

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
        if (found := shutil.which(name))
    ),
    None,
)

_KEYS = {
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    "Space": ("Space", 32, " "),
    "ArrowDown": ("ArrowDown", 40, ""),
    "/": ("Slash", 191, "/"),
}


_LAUNCH = """
import fcntl, os, sys
# Out of the way of 3 and 4 first.
to_it, from_it = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(to_it, 3), os.dup2(from_it, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Puts the pipes where Chromium wants them, whatever numbers they have here."""


class Browser:
    """One browser process; a context manager. `page` opens a tab."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None, "no Chromium here"
        to_it, ours_out = os.pipe()
        ours_in, from_it = os.pipe()
        self._out, self._in = ours_out, ours_in
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--hide-scrollbars", "--force-color-profile=srgb", "--no-default-browser-check",
            "--remote-debugging-pipe", f"--user-data-dir={profile}",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-IS", "-c", _LAUNCH, str(to_it), str(from_it), CHROMIUM, *flags, "about:blank"],
            pass_fds=(to_it, from_it),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(profile)},
        )
        os.close(to_it)
        os.close(from_it)
        self._buffer = b""
        self._number = 0
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def page(self, *, width: int = 1400, height: int = 900, dark: bool = False) -> Page:
        """A fresh tab of that size and theme."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        page.call("Page.enable")
        page.call("Runtime.enable")
        page.call("Log.enable")
        page.resize(width, height)
        page.theme(dark=dark)
        return page

    def call(self, method: str, parameters: dict[str, Any] | None = None, session: str = "") -> Any:
        """The result of one command; events that come in between go to their pages."""
        self._number += 1
        asked: dict[str, Any] = {"id": self._number, "method": method, "params": parameters or {}}
        if session:
            asked["sessionId"] = session
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            message = self._read(deadline)
            assert message is not None, f"Chromium did not answer {method}"
            if message.get("id") == asked["id"]:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._event(message)

    def listen(self, seconds: float) -> None:
        """Take the events that come within *seconds*."""
        deadline = time.monotonic() + seconds
        while (message := self._read(deadline)) is not None:
            self._event(message)

    def _event(self, message: dict[str, Any]) -> None:
        page = self._pages.get(message.get("sessionId", ""))
        if page is not None:
            page.happened(message["method"], message["params"])

    def _read(self, deadline: float) -> dict[str, Any] | None:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            data = os.read(self._in, 1 << 20)
            assert data, f"Chromium is gone: exit status {self._process.poll()}"
            self._buffer += data
        raw, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(raw)
        return found


@dataclass
class Page:
    """A tab. What its script throws or complains about is in `errors`."""

    browser: Browser
    session: str
    target: str
    errors: list[str] = field(default_factory=list)
    dialog: bool | None = None
    """How to answer the next `confirm`; None leaves it open, which fails what comes after."""

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> Any:
        """A command to this tab."""
        return self.browser.call(method, parameters, self.session)

    def happened(self, method: str, what: dict[str, Any]) -> None:
        """An event of this tab."""
        if method == "Runtime.exceptionThrown":
            details = what["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description") or details["text"]))
        elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning"):
            self.errors.append(" ".join(str(one.get("value", "")) for one in what["args"]))
        elif method == "Log.entryAdded" and what["entry"]["level"] == "error":
            self.errors.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        """Go to *url* and wait until its document is read."""
        self.call("Page.navigate", {"url": url})
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def close(self) -> None:
        """Shut the tab."""
        self.browser.call("Target.closeTarget", {"targetId": self.target})

    def resize(self, width: int, height: int = 900) -> None:
        """Another size of the window."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", metrics)

    def theme(self, *, dark: bool) -> None:
        """What the person prefers."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.call("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str) -> Any:
        """The value of an expression (promises are awaited). Fails with what it throws."""
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True, "userGesture": True}
        answer = self.call("Runtime.evaluate", asked)
        problem = answer.get("exceptionDetails")
        assert problem is None, f"{script[:200]}: {problem}"
        return answer["result"].get("value")

    def until(self, script: str, *, within: float = DEADLINE_SECONDS) -> Any:
        """The first truthy value of *script*; fails with what the page shows at the deadline."""
        deadline = time.monotonic() + within
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"never: {script}\nerrors: {self.errors}\n{self.text()}"
            self.browser.listen(POLL_SECONDS)
        return value

    def sees(self, text: str, *, within: float = DEADLINE_SECONDS) -> None:
        """Wait until *text* is on the page."""
        self.until(f"document.body?.innerText.includes({json.dumps(text)})", within=within)

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.run("document.body.innerText"))

    def click(self, selector: str) -> None:
        """Press the mouse on the first element that fits, where it is, once it can be seen."""
        found = json.dumps(selector)
        place = self.until(
            f"(() => {{ const node = document.querySelector({found});"
            "if (!node || node.disabled) return null; node.scrollIntoView({block: 'nearest'});"
            "const box = node.getBoundingClientRect();"
            "if (!box.width) return null; return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            event = {"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", event)

    def press(self, *keys: str) -> None:
        """Keys, one after the other."""
        for key in keys:
            code, number, text = _KEYS[key]
            event = {"key": " " if key == "Space" else key, "code": code, "windowsVirtualKeyCode": number}
            self.call(
                "Input.dispatchKeyEvent", {**event, "type": "keyDown", **({"text": text} if text else {})}
            )
            self.call("Input.dispatchKeyEvent", {**event, "type": "keyUp"})

    def type(self, text: str) -> None:
        """Text into whatever has the focus."""
        self.call("Input.insertText", {"text": text})

    def focused(self) -> str:
        """What has the focus, in words: its label or its text."""
        return str(self.run(
            "(() => { const node = document.activeElement; return node.getAttribute('aria-label')"
            " || node.innerText || node.tagName; })()"
        ))  # fmt: skip

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page, or only of what the window shows."""
        self.run("document.fonts.ready.then(() => true)")
        shot = self.call("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(shot["data"]))


def axe(page: Page, source: str, impacts: Sequence[str] = ("serious", "critical")) -> list[str]:
    """What axe-core (its *source*) finds wrong with the page, of those impacts."""
    page.run(f"{source}; true")
    found = page.run("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {[node['target'] for node in one['nodes']][:5]}"
        for one in found
        if one["impact"] in impacts
    ]
