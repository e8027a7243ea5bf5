"""Several addresses at once, socket files, and TLS whose certificate is renewed under open connections."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import DefaultHttpxClient, OpenAI

from tests.support.certificates import issue
from tests.support.command_line import CommandLine
from tests.support.eventually import eventually
from tests.support.running_daemon import RunningDaemon, free_port, scripted
from tests.support.trees import clean_folder

pytestmark = pytest.mark.process


@pytest.fixture
def folder() -> Iterator[Path]:
    """One whose path is short enough for a socket."""
    with clean_folder() as path:
        yield path


def subject(port: int, trusting: ssl.SSLContext) -> list[str]:
    """Names in the certificate that is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        trusting.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        shown: Any = secure.getpeercert()
        return [value for kind, value in shown["subjectAltName"] if kind == "DNS"]


def test_plain_tls_and_a_socket_file_side_by_side(folder: Path) -> None:
    tls, trusting = issue(folder)
    secure, path = free_port(), folder / "yard.sock"
    daemon = RunningDaemon(folder, {"models": {"a": scripted()}, "tls": tls}, by_file=True)
    daemon.settings["listen"] = [f"127.0.0.1:{daemon.port}", f"https://127.0.0.1:{secure}", f"unix:{path}"]
    daemon.settings["socket_mode"] = "660"
    with daemon:
        assert daemon.chat("a").status_code == 200
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost"
        ) as client:
            assert client.get("/v1/models").json()["data"][0]["id"] == "a"
        base = f"https://127.0.0.1:{secure}/v1"
        with OpenAI(base_url=base, api_key="x", http_client=DefaultHttpxClient(verify=trusting)) as sdk:
            large: list[Any] = [{"role": "user", "content": "x" * 2**20}]
            whole = sdk.chat.completions.create(model="a", messages=large)
            assert "served by a" in str(whole.choices[0].message.content)
            stream = sdk.chat.completions.create(model="a", messages=large, stream=True)
            assert "served by a" in "".join(event.choices[0].delta.content or "" for event in stream)
        with httpx.Client(verify=trusting) as client:
            assert client.post(f"{base}/chat/completions", content=b"{").status_code == 400
        with (
            socket.create_connection(("127.0.0.1", secure), 5) as plain,
            trusting.wrap_socket(plain, server_hostname="127.0.0.1") as raw,
        ):
            # Refused while its body still comes: the refusal must arrive all the same.
            raw.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"
            )
            raw.sendall(b"x" * 2**20)
            assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")
        assert daemon.status()["listen"] == daemon.settings["listen"]
        found = CommandLine(folder).json("ps", "--url", f"unix:{path}")
        assert [model["id"] for model in found if model["state"] == "ready"] == ["a"]
    assert not path.exists(), "the socket file is left"


def test_the_certificate_is_renewed_and_no_connection_is_cut(folder: Path) -> None:
    tls, trusting = issue(folder, "first.example")
    daemon = RunningDaemon(folder, {"models": {"a": scripted()}, "tls": tls}, by_file=True)
    secure = free_port()
    daemon.settings["listen"] = [f"127.0.0.1:{daemon.port}", f"https://127.0.0.1:{secure}"]
    with daemon:
        assert daemon.process is not None
        kept = http.client.HTTPSConnection("127.0.0.1", secure, context=trusting, timeout=10)
        kept.request("GET", "/v1/models")
        assert kept.getresponse().read()
        assert subject(secure, trusting) == ["first.example"]
        _, trusting_new = issue(folder, "second.example")
        os.kill(daemon.process.pid, signal.SIGHUP)

        def renewed() -> bool:
            try:
                return subject(secure, trusting_new) == ["second.example"]
            except ssl.SSLCertVerificationError:
                return False

        eventually(renewed, what="the new certificate to be shown")
        kept.request("GET", "/v1/models")
        assert kept.getresponse().status == 200
        kept.close()
        # What cannot be used is said, and the one that is shown stays.
        Path(tls["key"]).chmod(0o644)
        os.kill(daemon.process.pid, signal.SIGHUP)
        eventually(lambda: "chmod 600" in daemon.log, what="the reload to be refused")
        assert subject(secure, trusting_new) == ["second.example"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("missing", "key.pem: No such file"),
        ("everybody's", "chmod 600"),
        ("another's", "does not belong to the certificate"),
        ("no certificate", "certificate.pem"),
        ("plain", "write https:// before one under listen:"),
        ("bare", "needs tls:"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(folder: Path, spoil: str, said: str) -> None:
    tls, _ = issue(folder)
    key = Path(tls["key"])
    scheme = "" if spoil == "plain" else "https://"
    settings = {"listen": f"{scheme}127.0.0.1:{free_port()}", "tls": tls}
    if spoil == "missing":
        key.unlink()
    elif spoil == "everybody's":
        key.chmod(0o644)
    elif spoil == "another's":
        certificate = Path(tls["certificate"]).read_bytes()
        issue(folder)
        Path(tls["certificate"]).write_bytes(certificate)
    elif spoil == "no certificate":
        Path(tls["certificate"]).write_text("nothing")
    elif spoil == "bare":
        del settings["tls"]
    daemon = RunningDaemon(folder, settings, by_file=True)
    assert daemon.spawn().wait(20) == 78
    assert said in daemon.log.strip().splitlines()[-1]
    daemon.close()


def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(folder: Path) -> None:
    path = folder / "yard.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    daemon = RunningDaemon(folder / "one", {"listen": ["127.0.0.1:0", f"unix:{path}"]}, by_file=True)
    daemon.settings["listen"][0] = f"127.0.0.1:{daemon.port}"
    with daemon:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        second = RunningDaemon(folder / "two", {"listen": f"unix:{path}"}, by_file=True)
        assert second.spawn().wait(20) == 1
        assert f"cannot listen on unix:{path}: another process listens there" in second.log
        second.close()
        # What is no socket is nobody's to remove.
        (folder / "file").write_text("mine")
        third = RunningDaemon(folder / "three", {"listen": f"unix:{folder}/file"}, by_file=True)
        assert third.spawn().wait(20) == 1
        assert (folder / "file").read_text() == "mine"
        third.close()
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost"
        ) as client:
            assert client.get("/health").status_code == 200
