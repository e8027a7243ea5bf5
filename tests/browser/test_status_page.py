"""What an operator does on the status page, and what it shows while the daemon works."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.browser import Page
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, scripted

pytestmark = [pytest.mark.process, pytest.mark.browser, pytest.mark.timeout(120)]

HOSTILE = "<img/src=x/onerror=hurt()>&amp;"
ENDLESS = ("--chunks", "6000", "--chunk-interval", "0.1")
"""An answer that nobody waits for to the end."""
HOSTILE_LINE = "<script>hurt()</script> <b>bold</b> &lt; \x1b[31mred\x1b[0m"


def button(label: str) -> str:
    """The selector of a button by its accessible name."""
    return f'button[aria-label="{label}"]'


def model_says(name: str, words: str) -> str:
    """A script: *words* are in the row of that model."""
    return (
        f"[...document.querySelectorAll('.model')].some(row => row.dataset.key === {name!r}"
        f" && row.innerText.includes({words!r}))"
    )


@contextmanager
def asking(daemon: RunningDaemon, model: str, count: int) -> Iterator[list[concurrent.futures.Future[str]]]:
    """*count* streamed requests at once; what each was told, once it ended, is waited for at the end."""

    def ask() -> str:
        with daemon.stream(model) as answer:
            return answer.read().decode()

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        yield [pool.submit(ask) for _ in range(count)]


def test_a_model_is_loaded_its_log_is_read_and_it_is_unloaded(page: Page, tmp_path: Path) -> None:
    models = {"org/a:1b": scripted("--ready-after", "0.5", "--noise", "30", "--chatter", "0.2")}
    with RunningDaemon(tmp_path, {"models": models}) as daemon:
        page.open(f"{daemon.url}/status")
        page.sees("Nothing is loaded")
        page.click(button("Load org/a:1b"))
        page.until(model_says("org/a:1b", "ready"))
        page.sees("an operator asked to load it")
        assert daemon.model("org/a:1b")["state"] == "ready"

        page.click(button("Log org/a:1b"))
        page.until("document.querySelectorAll('.line').length > 30")
        before = page.run("document.querySelectorAll('.line').length")
        page.until(f"document.querySelectorAll('.line').length > {before}")  # it goes on by itself

        page.press("/")
        assert page.focused() == "Search the log"
        page.type("NOISE line 2")
        shown = "[...document.querySelectorAll('.line:not([hidden])')].map(line => line.innerText)"
        found = page.run(shown)
        assert len(found) == 11  # 2, and 20 to 29
        assert all("noise line 2" in line for line in found)
        assert page.run("document.querySelector('.line mark').innerText") == "noise line 2"
        assert "11 of " in page.run("document.getElementById('log-count').innerText")
        page.press("Escape")
        page.until("document.querySelectorAll('.line[hidden]').length === 0")
        page.press("Escape")
        page.until("document.getElementById('log').hidden")
        assert page.focused() == "Log org/a:1b"

        page.click(button("Unload org/a:1b"))
        page.until(model_says("org/a:1b", "Load"))
        assert eventually(lambda: daemon.model("org/a:1b")["state"] == "stopped")
        page.sees("an operator asked to unload it")


def test_a_log_is_followed_until_somebody_scrolls_up(page: Page, tmp_path: Path) -> None:
    models = {"a": scripted("--noise", "200", "--chatter", "0.1")}
    with RunningDaemon(tmp_path, {"models": models}) as daemon:
        daemon.chat("a")
        page.open(f"{daemon.url}/status")
        page.click(button("Log a"))
        page.until("document.querySelectorAll('.line').length > 200")
        at_end = "(b => b.scrollHeight - b.scrollTop - b.clientHeight < 30)(document.getElementById('lines'))"
        page.until(at_end)
        page.run("document.getElementById('lines').scrollTop = 0")
        page.until("!document.getElementById('follow').checked")
        page.until("/[0-9] new/.test(document.getElementById('log-follow').innerText)")
        assert page.run("document.getElementById('lines').scrollTop") == 0
        page.click("#follow")
        page.until(at_end)


def test_a_model_is_pinned_and_unpinned_by_the_keyboard(page: Page, tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, {"models": {"a": scripted()}}) as daemon:
        daemon.chat("a")
        page.open(f"{daemon.url}/status")
        page.until(f"document.querySelector('{button('Pin a')}')")
        for _ in range(20):
            page.press("Tab")
            if page.focused() == "Pin a":
                break
        page.press("Enter")
        page.until(f"document.querySelector('{button('Unpin a')}')")
        assert daemon.model("a")["pinned"]
        assert page.focused() == "Unpin a"  # the same place, so that the next Enter takes it back
        page.press("Enter")
        page.until(f"document.querySelector('{button('Pin a')}')")
        assert not daemon.model("a")["pinned"]


def test_a_start_that_fails_says_why_and_what_to_do(page: Page, tmp_path: Path) -> None:
    knobs = ("--exit-at-start", "--stderr-line", "ValueError: no such quantisation: q3_zz")
    settings = {"models": {"bad": scripted(*knobs), "good": scripted()}, "start": {"backoff_first": "60s"}}
    with RunningDaemon(tmp_path, settings) as daemon:
        page.open(f"{daemon.url}/status")
        page.click(button("Load bad"))
        page.until(model_says("bad", "backoff"))
        error = daemon.model("bad")["last_error"]
        assert "q3_zz" in error["cause"]
        page.until(model_says("bad", error["cause"]))
        page.until(model_says("bad", f"What to do: {error['remedy']}"))
        page.until(model_says("bad", "next start allowed in"))
        page.sees("Need attention")
        starts = daemon.model("bad")["starts"]
        page.click(button("Try again bad"))
        assert eventually(lambda: daemon.model("bad")["starts"] > starts)


def test_a_queue_is_shown_with_its_age_and_is_not_lost_without_a_question(page: Page, tmp_path: Path) -> None:
    models = {"a": scripted(*ENDLESS, concurrency=1)}
    with RunningDaemon(tmp_path, {"models": models}) as daemon:
        page.open(f"{daemon.url}/status")
        with asking(daemon, "a", 3) as answers:
            page.until("/In flight\\s+1 oldest [1-9]/.test(document.querySelector('.numbers')?.innerText)")
            page.until("/Waiting\\s+2 for [1-9]/.test(document.querySelector('.numbers')?.innerText)")
            page.sees("waiting for a free slot of a")

            page.click(button("Unload a"))
            page.until("document.getElementById('confirm').open")
            page.sees("This refuses the 2 requests that wait for it.")
            assert page.focused() == "Keep it"
            page.press("Escape")
            page.until("!document.getElementById('confirm').open")
            assert daemon.model("a")["waiting"] == 2

            page.click(button("Unload a"))
            page.click("#confirm [data-danger]")
            page.until(model_says("a", "draining"))
            page.click(button("Stop now a"))
            page.sees("This cuts the answer that is being given.")
            page.click("#confirm [data-danger]")
            page.until(model_says("a", "Load"))
        told = [answer.result() for answer in answers]
        assert sum("unloaded by the operator" in one for one in told) == 2
        assert sum('"served"' in one and '"error"' in one for one in told) == 1


def test_what_a_waiting_model_waits_for_is_said(page: Page, tmp_path: Path) -> None:
    models = {
        "busy": scripted(*ENDLESS, memory="2GiB"),
        "next": scripted(memory="2GiB"),
    }
    with RunningDaemon(tmp_path, {"models": models, "memory": {"host": "3GiB"}}) as daemon:
        page.open(f"{daemon.url}/status")
        with asking(daemon, "busy", 1):
            page.until(model_says("busy", "ready"))
            with asking(daemon, "next", 1):
                page.until(model_says("next", "waiting for memory: busy in use"))
                page.sees("2.0 of 3.0 GiB budget reserved")
                page.click(button("Cancel next"))
                page.click("#confirm [data-danger]")
                page.until(model_says("next", "Load"))
            page.click(button("Unload busy"))
            page.click(button("Stop now busy"))
            page.click("#confirm [data-danger]")
            page.until(model_says("busy", "Load"))


def test_a_page_comes_back_by_itself_after_the_daemon_was_restarted(page: Page, tmp_path: Path) -> None:
    models = {"a": scripted("--chatter", "0.2")}
    with RunningDaemon(tmp_path, {"models": models, "adopt_within": "60s"}) as daemon:
        daemon.chat("a")
        page.open(f"{daemon.url}/status")
        page.click(button("Log a"))
        page.until("document.querySelectorAll('.line').length > 2")
        page.run("window.same = true")
        daemon.kill()
        page.sees("no connection")
        page.sees("Connection lost. Trying again …")
        page.until("document.getElementById('log-state').innerText.includes('trying again')")
        daemon.start()
        page.sees("serving", within=30)
        page.until("document.getElementById('alarm').hidden")
        page.sees("taken over from the earlier daemon")
        seen = page.run("document.querySelectorAll('.line').length")
        page.until(f"document.querySelectorAll('.line').length > {seen}")
        lines = page.run("[...document.querySelectorAll('.line')].map(line => line.innerText)")
        assert sum("incarnation 1 started" in line for line in lines) == 1  # resumed, not begun anew
        assert page.run("window.same")
        assert daemon.stop() == 0
        page.sees("the daemon is stopping")


def test_names_and_lines_are_text_and_never_markup(page: Page, tmp_path: Path) -> None:
    settings = {
        "models": {
            HOSTILE: scripted("--stderr-line", HOSTILE_LINE),
            "bad": scripted("--exit-at-start", "--stderr-line", f"ValueError: {HOSTILE_LINE}"),
        }
    }
    with RunningDaemon(tmp_path, settings) as daemon:
        page.open(f"{daemon.url}/status")
        page.run("window.hurt = () => { window.was_hurt = true }")
        page.sees(HOSTILE)
        httpx.post(f"{daemon.url}/api/models/bad/load?wait=0")
        page.click(button(f"Load {HOSTILE}"))
        page.click(button(f"Log {HOSTILE}"))
        page.sees("<script>hurt()</script> <b>bold</b> &lt; red")
        page.click("#log-search")
        page.type("<b>bold")
        page.until("document.querySelector('.line mark')?.innerText === '<b>bold'")
        page.sees("ValueError: <script>hurt()</script>")
        foreign = (
            "document.querySelectorAll('main img, main script, .line b, .line script, main [onerror]').length"
        )
        assert page.run(foreign) == 0
        assert not page.run("window.was_hurt")
        assert page.run("[...document.querySelectorAll('script')].length") == 1


def test_forty_models_are_found_by_typing_and_the_unusable_are_folded_away(
    page: Page, tmp_path: Path
) -> None:
    models: dict[str, object] = {f"org/model-{number}": scripted() for number in range(40)}
    models |= {f"hub/missing-{number}": {"source": f"nobody/missing-{number}"} for number in range(5)}
    with RunningDaemon(tmp_path, {"models": models}) as daemon:
        daemon.chat("org/model-7")
        page.open(f"{daemon.url}/status")
        headings = "[...document.querySelectorAll('.group h3')].map(one => one.innerText)"
        page.until(f"{headings}.length === 3")
        assert page.run(headings) == ["Active", "Ready to load", "Cannot run here"]
        assert not page.run("document.querySelector('.group.unusable').open")
        page.press("/")
        assert page.focused() == "Filter models"
        page.type("missing-3")
        visible = (
            "[...document.querySelectorAll('.model')].filter(row => row.checkVisibility())"
            ".map(row => row.dataset.key)"
        )
        page.until(f"{visible}.length === 1")
        assert page.run(visible) == ["hub/missing-3"]
        problem = daemon.model("hub/missing-3")["problem"]["message"]
        page.sees(problem)  # unfolded, because it is what was looked for
        page.press("Escape")
        page.until(f"{visible}.length >= 40")
        page.press("/")
        page.type("ready model")
        page.until(f"{visible}.length === 1")
        page.type(" no such thing")
        page.sees("No model fits the filter")


def test_a_newcomer_is_told_what_to_type(page: Page, tmp_path: Path) -> None:
    with RunningDaemon(tmp_path / "none", {}) as daemon:
        page.open(f"{daemon.url}/status")
        page.sees("No models yet")
        page.sees("hf download")
        page.sees("not ready")
    with RunningDaemon(tmp_path / "one", {"models": {"it's": scripted()}}) as daemon:
        page.open(f"{daemon.url}/status")
        page.sees(f"curl {daemon.url}/v1/chat/completions")
        page.sees("it'\\''s")


def test_nothing_is_wider_than_a_telephone(page: Page, tmp_path: Path) -> None:
    long = "organisation-with-a-long-name/model-with-an-even-longer-name-instruct-awq-int4-g128@revision"
    with RunningDaemon(tmp_path, {"models": {long: scripted("--noise", "5")}}) as daemon:
        daemon.chat(long)
        page.resize(400)
        page.open(f"{daemon.url}/status")
        page.until(model_says(long, "ready"))
        page.click(button(f"Log {long}"))
        page.sees("noise line 4")
        assert page.run("document.scrollingElement.scrollWidth") <= 400
        assert page.run("document.getElementById('log').getBoundingClientRect().right") <= 400
