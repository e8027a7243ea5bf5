"""A scripted inference server: standard library only, run as `python fake_engine.py --port N [knobs]`.

It speaks HTTP/1.1 with Content-Length or chunked bodies and keep-alive, or (`--http10`) HTTP/1.0 where the
end of the connection is the end of the body, as mlx_lm.server does.

Routes: `GET /health`, `GET /v1/models`, `POST /v1/chat/completions` and `/v1/completions` (streamed or not),
`POST /v1/embeddings`, and for tests `GET /_stats`:
`{"pid", "model", "children", "requests": {"POST /v1/chat/completions": 3}, "in_flight", "disconnects",
"last": {"headers": {...}, "body": {...}}, "answers_since", "first_asked"}`; `last` is of the last inference
request; the last two are times of this machine's monotonic clock.
An answer's text is `served by <model> pid <pid>` followed by ` w0 w1 ...`, cut to `--chunks` words (or to the
request's `max_tokens` when that is less); `model` echoes what the request named.

Life
  --bind-after S        the port opens S seconds after the start (vLLM and vllm-mlx bind after loading)
  --bind-when FILE      the port opens when FILE is there
  --ready-when FILE     as --ready-after, until FILE is there
  --ready-after S       until then /health is 503 and inference waits (mlx-lm binds early)
  --exit-at-start       write the lines and exit with --exit-code
  --exit-after S        exit with --exit-code S seconds after the start
  --exit-code N         default 1
  --exit-on-taken-port  exit 98 when the port is taken; otherwise it stays up without serving (mlx-lm)
  --ignore-term         SIGTERM has no effect
  --ignore-first-term   the first SIGTERM has no effect (vLLM while it boots)
  --term-delay S        SIGTERM exits S seconds later
  --fork-child          a child in our process group that sleeps for ever
  --setsid-child        a grandchild in a session of its own, orphaned, deaf to HUP, INT and TERM
  --memory MB           touch that much memory
  --memfd MB            the same in a memfd that two children of ours map and touch too
  --mapped MB           the same in a file that is mapped and read
  --spin                burn CPU while not ready (a sign of life without a log line)
  --try-import NAME     exit 3 if NAME can be imported (proves that nothing of ours leaks into children)
Words
  --stderr-line TEXT    may be repeated; written at the start
  --stdout-line TEXT    the same on stdout
  --progress N          N updates of one carriage-return progress bar, spread over --ready-after
  --noise N             N numbered lines at the start
  --chatter S           a line every S seconds for as long as we live
Answers
  --health-status N     /health always answers N
  --wrong-health        /health is 200 from the first moment, ready or not
  --health-body JSON    body of /health, default {"status": "ok"}
  --models NAME         may be repeated: what /v1/models lists besides --model
  --hide-model          /v1/models is empty
  --only-model          inference for any other name is 404 {"error": "..."}
  --key KEY             demand `Authorization: Bearer KEY` on /v1 (also by $FAKE_ENGINE_KEY)
  --status N            inference answers N and {"error": "scripted failure"}
  --slow-first-byte S   wait before an answer's first byte
  --chunks N            words of an answer, default 8
  --chunk-interval S    pause between two words of a stream
  --until FILE          a stream has further words until FILE is there
  --chunk-bytes N       pad every streamed event to N bytes
  --no-done             streams end without `data: [DONE]`
  --no-usage            no usage anywhere
  --echo-headers        answers carry `echo`: {"headers": {...}, "body": {...}, "path": "..."}
  --http10              HTTP/1.0, close-delimited
Failures
  --hang-at headers     accept the request and never answer
  --hang-at chunk       send the first event and nothing more
  --cut-after N         close the connection after N events of a stream, without an end
  --cut-inside          with --cut-after: half an event goes out before the close
  --die-after-bytes N   SIGKILL ourselves once N body bytes of an inference answer were sent
  --kill-on-request N   SIGKILL ourselves when the N-th inference request has arrived, before any byte
"""

from __future__ import annotations

import argparse
import itertools
import json
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Run as a script, it finds its other half through the checkout's root, and forgets that root again: with it,
# `--try-import` could not tell what leaks into a child.
_ROOT = str(Path(__file__).resolve().parents[2])
sys.path.append(_ROOT)
from tests.support.fake_engine_wire import Connection, HangupError, Request, is_there, pause  # noqa: E402  the path above

sys.path.remove(_ROOT)

INFERENCE = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The knobs of the docstring."""
    p = argparse.ArgumentParser(allow_abbrev=False)
    p.add_argument("--host", default="127.0.0.1")
    p.add_argument("--port", type=int, required=True)
    p.add_argument("--model", default="fake")
    for name in ("bind-after", "ready-after", "term-delay", "slow-first-byte", "chunk-interval"):
        p.add_argument(f"--{name}", type=float, default=0.0)
    for name in ("exit-after", "chatter"):
        p.add_argument(f"--{name}", type=float)
    for name in ("cut-after", "die-after-bytes", "kill-on-request", "health-status", "status"):
        p.add_argument(f"--{name}", type=int)
    for name, default in (
        ("exit-code", 1), ("memory", 0), ("memfd", 0), ("mapped", 0),
        ("progress", 0), ("noise", 0), ("chunks", 8), ("chunk-bytes", 0),
    ):  # fmt: skip
        p.add_argument(f"--{name}", type=int, default=default)
    for name in ("stderr-line", "stdout-line", "models"):
        p.add_argument(f"--{name}", action="append", default=[])
    p.add_argument("--health-body", default='{"status": "ok"}')
    p.add_argument("--key", default=os.environ.get("FAKE_ENGINE_KEY", ""))
    p.add_argument("--try-import")
    for name in ("until", "bind-when", "ready-when"):
        p.add_argument(f"--{name}", type=Path)
    p.add_argument("--hang-at", choices=("headers", "chunk"))
    for name in (
        "exit-at-start", "exit-on-taken-port", "ignore-term", "ignore-first-term", "fork-child",
        "setsid-child", "spin", "wrong-health", "hide-model", "only-model", "no-done", "no-usage",
        "echo-headers", "http10", "cut-inside",
    ):  # fmt: skip
        p.add_argument(f"--{name}", action="store_true")
    return p.parse_args(argv)


class Engine:
    """The server: what it counts, and what it answers."""

    def __init__(self, knobs: argparse.Namespace) -> None:
        self.knobs = knobs
        self.started = time.monotonic()
        self.lock = threading.Lock()
        self.requests: dict[str, int] = {}
        self.inference = 0
        self.in_flight = 0
        self.disconnects = 0
        self.children: list[int] = []
        self.last: dict[str, Any] = {}
        self.listens_since = 0.0
        self.first_asked: float | None = None
        self.ballast: list[bytes] = []
        self.maps: list[mmap.mmap] = []

    @property
    def is_ready(self) -> bool:
        """Whether --ready-after is over."""
        is_late_enough = time.monotonic() - self.started >= float(self.knobs.ready_after)
        return is_late_enough and is_there(self.knobs.ready_when)

    def disconnected(self) -> None:
        """A client left before its answer was complete."""
        with self.lock:
            self.disconnects += 1

    def listen(self) -> None:
        """Serve for ever."""
        pause(self.knobs.bind_after)
        while not is_there(self.knobs.bind_when):
            pause(0.01)
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.knobs.host, self.knobs.port))
        except OSError as error:
            print(f"OSError: {error}", file=sys.stderr, flush=True)
            if self.knobs.exit_on_taken_port:
                os._exit(98)
            threading.Event().wait()
        listener.listen(512)
        self.listens_since = time.monotonic()
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=Connection(self, sock).serve, daemon=True).start()

    def answer(self, c: Connection, request: Request) -> None:
        """Answer one request."""
        path = request.path.split("?")[0]
        with self.lock:
            key = f"{request.method} {path}"
            self.requests[key] = self.requests.get(key, 0) + 1
        c.counts = path in INFERENCE and request.method == "POST"
        if path == "/_stats":
            c.whole(200, json.dumps(self.stats()).encode())
        elif path == "/health":
            self.health(c)
        elif self.knobs.key and request.headers.get("authorization") != f"Bearer {self.knobs.key}":
            c.whole(401, b'{"error": "wrong key"}')
        elif path == "/v1/models":
            names = [] if self.knobs.hide_model else [self.knobs.model, *self.knobs.models]
            entry = {"object": "model", "created": 1, "owned_by": "fake", "max_model_len": 4096}
            data = [{"id": name, **entry} for name in names]
            c.whole(200, json.dumps({"object": "list", "data": data}).encode())
        elif c.counts:
            self.infer(c, request, path)
        else:
            c.whole(404, b'{"detail":"Not Found"}')

    def stats(self) -> dict[str, Any]:
        """What /_stats answers."""
        with self.lock:
            return {
                "pid": os.getpid(),
                "model": self.knobs.model,
                "children": self.children,
                "requests": self.requests,
                "in_flight": self.in_flight,
                "disconnects": self.disconnects,
                "last": self.last,
                "answers_since": max(self.listens_since, self.started + self.knobs.ready_after),
                "first_asked": self.first_asked,
            }

    def health(self, c: Connection) -> None:
        """GET /health."""
        if self.knobs.health_status is not None:
            c.whole(self.knobs.health_status, b'{"status": "scripted"}')
        elif self.is_ready or self.knobs.wrong_health:
            c.whole(200, self.knobs.health_body.encode())
        else:
            c.whole(503, b'{"status": "loading"}')

    def infer(self, c: Connection, request: Request, path: str) -> None:
        """An inference request, counted."""
        with self.lock:
            self.inference += 1
            self.first_asked = self.first_asked or time.monotonic()
            self.in_flight += 1
            self.last = {"headers": request.headers, "body": request.json, "path": request.path}
            number = self.inference
        try:
            if self.knobs.kill_on_request == number:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.knobs.hang_at == "headers":
                c.wait(1e6)
            while not self.is_ready:
                c.wait(0.02)
            if self.knobs.slow_first_byte:
                c.wait(self.knobs.slow_first_byte)
            self.respond(c, request, path)
        finally:
            with self.lock:
                self.in_flight -= 1

    def respond(self, c: Connection, request: Request, path: str) -> None:
        """The answer itself."""
        asked = request.json.get("model") or self.knobs.model
        if self.knobs.status is not None:
            c.whole(self.knobs.status, b'{"error": "scripted failure"}')
        elif self.knobs.only_model and asked not in (self.knobs.model, *self.knobs.models):
            c.whole(404, json.dumps({"error": f"no model {asked}"}).encode())
        elif path == "/v1/embeddings":
            row = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5, 0.75]}
            self.send_json(c, request, {"object": "list", "model": asked, "data": [row]}, words=0)
        elif request.json.get("stream"):
            self.stream(c, request, chat=path.endswith("chat/completions"))
        else:
            words = self.words(request)
            text = " ".join(words)
            chat = path.endswith("chat/completions")
            choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
            choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            answer = {
                "id": "fake-1",
                "object": "chat.completion" if chat else "text_completion",
                "created": 1,
            }
            self.send_json(c, request, answer | {"model": asked, "choices": [choice]}, words=len(words))

    def send_json(self, c: Connection, request: Request, answer: dict[str, Any], *, words: int) -> None:
        """A whole answer with usage and echo."""
        if not self.knobs.no_usage:
            answer["usage"] = self.usage(words)
        c.whole(200, json.dumps(answer | self.echo(request)).encode())

    def words(self, request: Request) -> list[str]:
        """The words of an answer."""
        count = min(self.knobs.chunks, int(request.json.get("max_tokens") or self.knobs.chunks))
        said = ["served", "by", self.knobs.model, "pid", str(os.getpid())]
        return [*said, *(f"w{i}" for i in range(count - len(said)))][:count]

    def streamed(self, request: Request) -> Iterator[str]:
        """The words of a stream: those of an answer, and more for as long as somebody wants."""
        words = self.words(request)
        yield from words
        more = itertools.count(len(words) - 5)
        while not is_there(self.knobs.until):
            yield f"w{next(more)}"

    def usage(self, words: int) -> dict[str, int]:
        """OpenAI's usage object."""
        return {"prompt_tokens": 3, "completion_tokens": words, "total_tokens": 3 + words}

    def echo(self, request: Request) -> dict[str, Any]:
        """What the request looked like, if asked for."""
        if not self.knobs.echo_headers:
            return {}
        return {"echo": {"headers": request.headers, "body": request.json, "path": request.path}}

    def stream(self, c: Connection, request: Request, *, chat: bool) -> None:
        """An event stream with its scripted failures."""
        frame = {
            "id": "fake-1",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": 1,
            "model": request.json.get("model") or self.knobs.model,
        } | self.echo(request)
        number = -1
        c.begin_stream()
        for number, word in enumerate(self.streamed(request)):
            if number:
                c.wait(self.knobs.chunk_interval)
            text = word if number == 0 else f" {word}"
            choice: dict[str, Any] = {"index": 0, "finish_reason": None}
            choice |= {"delta": {"content": text}} if chat else {"text": text}
            data = json.dumps(frame | {"choices": [choice]}).encode()
            if self.knobs.cut_after is not None and number >= self.knobs.cut_after:
                if self.knobs.cut_inside:
                    c.event(data, half=True)
                raise HangupError
            c.event(data.ljust(self.knobs.chunk_bytes))
            if self.knobs.hang_at == "chunk":
                c.wait(1e6)
        end: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        end["delta" if chat else "text"] = {} if chat else ""
        c.event(json.dumps(frame | {"choices": [end]}).encode())
        if not self.knobs.no_usage and (request.json.get("stream_options") or {}).get("include_usage"):
            c.event(json.dumps(frame | {"choices": [], "usage": self.usage(number + 1)}).encode())
        if not self.knobs.no_done:
            c.event(b"[DONE]")
        c.end_stream()


def start_children(engine: Engine) -> None:
    """The descendants that the knobs ask for, forked before any thread exists."""
    if engine.knobs.fork_child:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pause()
        engine.children.append(child)
    if engine.knobs.setsid_child:
        read_end, write_end = os.pipe()
        middle = os.fork()
        if middle == 0:
            os.setsid()
            leaf = os.fork()
            if leaf == 0:
                os.close(write_end)
                for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)
                while True:
                    signal.pause()
            os.write(write_end, str(leaf).encode())
            os._exit(0)
        os.waitpid(middle, 0)
        engine.children.append(int(os.read(read_end, 32)))
        os.close(read_end)
        os.close(write_end)


def hold(engine: Engine) -> None:
    """The ballast that the knobs ask for; before any thread exists, because it forks."""
    knobs = engine.knobs
    for _ in range(knobs.memory):  # one large block would be copied, and the copy a peak of its own
        engine.ballast.append(os.urandom(2**20))
    if knobs.memfd:
        fd = os.memfd_create("ballast")
        os.truncate(fd, knobs.memfd * 2**20)
        told, tell = os.pipe()
        for _ in range(2):
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                engine.maps.append(touched(fd, knobs.memfd))
                os.write(tell, b".")
                signal.pause()
            engine.children.append(child)
        engine.maps.append(touched(fd, knobs.memfd))
        for _ in engine.children:
            os.read(told, 1)  # measured before they have touched theirs, it would be no ballast yet
    if knobs.mapped:
        with Path("ballast").open("w+b") as file:
            for _ in range(knobs.mapped):
                file.write(os.urandom(2**20))
            file.flush()
            engine.maps.append(touched(file.fileno(), knobs.mapped, write=False))


def touched(fd: int, megabytes: int, *, write: bool = True) -> mmap.mmap:
    """A shared map of *fd* whose every page was used."""
    flags = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0)
    found = mmap.mmap(fd, megabytes * 2**20, mmap.MAP_SHARED, flags)
    for page in range(0, len(found), mmap.PAGESIZE):
        if write:
            found[page] = 1
        else:
            found[page]
    return found


def obey_signals(knobs: argparse.Namespace) -> None:
    """What SIGTERM does."""
    terms = 0

    def on_term(_number: int, _frame: object) -> None:
        nonlocal terms
        terms += 1
        if knobs.ignore_term or (knobs.ignore_first_term and terms == 1):
            return
        if not knobs.term_delay:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return

        def leave() -> None:
            pause(knobs.term_delay)
            os._exit(0)

        threading.Thread(target=leave, daemon=True).start()

    signal.signal(signal.SIGTERM, on_term)


def speak(knobs: argparse.Namespace) -> None:
    """The lines of the start, in order."""
    for line in knobs.stdout_line:
        print(line, flush=True)
    for line in knobs.stderr_line:
        print(line, file=sys.stderr, flush=True)
    for number in range(knobs.noise):
        print(f"noise line {number} " + "x" * 60)
    sys.stdout.flush()


def in_background(engine: Engine) -> None:
    """Threads for what happens by itself."""
    knobs = engine.knobs

    def progress() -> None:
        for number in range(knobs.progress):
            percent = 100 * (number + 1) // knobs.progress
            sys.stderr.write(f"\rloading weights {percent}%")
            sys.stderr.flush()
            pause(knobs.ready_after / knobs.progress)
        sys.stderr.write("\n")

    def chatter() -> None:
        while True:
            pause(knobs.chatter)
            print("still here", flush=True)

    def spin() -> None:
        while not engine.is_ready:
            sum(range(20000))

    def leave() -> None:
        pause(knobs.exit_after)
        os._exit(knobs.exit_code)

    wanted = (
        (knobs.progress, progress),
        (knobs.chatter, chatter),
        (knobs.spin, spin),
        (knobs.exit_after is not None, leave),
    )
    for condition, work in wanted:
        if condition:
            threading.Thread(target=work, daemon=True).start()


def main() -> None:
    """Follow the script."""
    knobs = parse_arguments()
    obey_signals(knobs)
    if knobs.try_import:
        try:
            __import__(knobs.try_import)
        except ImportError:
            pass
        else:
            print(f"imported {knobs.try_import}", file=sys.stderr, flush=True)
            sys.exit(3)
    speak(knobs)
    if knobs.exit_at_start:
        sys.exit(knobs.exit_code)
    engine = Engine(knobs)
    start_children(engine)
    hold(engine)
    in_background(engine)
    threading.Thread(target=engine.listen, daemon=True).start()
    while True:  # signals are only handled in the main thread, which must not sit in accept()
        signal.pause()


if __name__ == "__main__":
    main()
