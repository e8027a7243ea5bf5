"""Ring 4: docs/howto/reverse-proxy.md as it stands: nginx with TLS in front of a real daemon."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import modelyard
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, free_port, scripted

PAGE = (Path(modelyard.__file__).parent.parent / "docs" / "howto" / "reverse-proxy.md").read_text(
    encoding="utf-8"
)
NAME = "yard.example.com"
NGINX, OPENSSL = (
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/opt/homebrew/bin"),
    shutil.which("openssl"),
)

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(NGINX is None or OPENSSL is None, reason="nginx or openssl is not installed"),
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    models = {
        "slow": scripted("--chunks", "6", "--chunk-interval", "0.2"),
        "endless": scripted("--chunks", "100000", "--chunk-interval", "0.05"),
    }
    settings = {"models": models, "host_names": [NAME]}
    with RunningDaemon(tmp_path_factory.mktemp("proxied"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def address(daemon: RunningDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """nginx with the page's block, on a free port, in front of the daemon."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    assert NGINX is not None
    assert OPENSSL is not None
    key, certificate = folder / "yard.key", folder / "yard.pem"
    request = [
        OPENSSL,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    subprocess.run([*request, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    (block,) = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
    for documented, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/yard.pem", str(certificate)),
        ("/etc/ssl/yard.key", str(key)),
        ("http://127.0.0.1:8080", daemon.url),
    ):
        assert documented in block
        block = block.replace(documented, here)
    places = "".join(
        f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off; {places}\n{block}}}\n"
    )
    with (folder / "log").open("wb") as log:
        nginx = subprocess.Popen([NGINX, "-c", folder / "nginx.conf"], stdout=log, stderr=log)
    try:

        def answers() -> bool:
            assert nginx.poll() is None, (folder / "log").read_text()
            try:
                with client(f"https://127.0.0.1:{port}", certificate) as asking:
                    return asking.get("/health").status_code == 200
            except httpx.TransportError:
                return False

        eventually(answers, within=10, what="nginx to serve")
        yield f"https://127.0.0.1:{port} {certificate}"
    finally:
        nginx.terminate()
        nginx.wait(10)


def client(url: str, certificate: str | Path) -> httpx.Client:
    """As a browser has it: by the proxy's name."""
    trust = ssl.create_default_context(cafile=str(certificate))
    return httpx.Client(base_url=url, verify=trust, headers={"Host": NAME}, trust_env=False, timeout=20)


@pytest.fixture
def browser(address: str) -> Iterator[httpx.Client]:
    url, certificate = address.split(" ")
    with client(url, certificate) as made:
        yield made


def test_tokens_come_through_as_they_are_made(browser: httpx.Client) -> None:
    body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    times, last = [], ""
    with browser.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                times.append(time.monotonic())
            last = line or last
    assert last == "data: [DONE]"
    # Buffered, they would come together at the end: less than one pause between the first and the last.
    assert times[-1] - times[0] > 0.6


def test_the_status_page_is_served_under_the_proxys_name_and_may_change_something(
    browser: httpx.Client,
) -> None:
    page = browser.get("/status", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    same = {"Origin": f"https://{NAME}", "Sec-Fetch-Site": "same-origin"}
    assert browser.post("/api/models/slow/pin", headers=same).status_code == 200
    other = browser.post("/api/models/slow/unpin", headers={"Origin": "https://evil.example"})
    assert other.json()["error"]["code"] == "cross_origin"


def test_a_client_that_leaves_is_noticed_through_the_proxy(
    browser: httpx.Client, daemon: RunningDaemon
) -> None:
    body = {"model": "endless", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    with browser.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()  # kept: an iterator that is dropped closes the connection
        assert "content" in next(line for line in lines if line.startswith("data: "))
        assert daemon.model("endless")["in_flight"] == 1
    eventually(lambda: daemon.model("endless")["in_flight"] == 0, within=5, what="the lease to come back")
