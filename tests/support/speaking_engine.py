"""An engine that speaks every protocol the SDKs do: `python speaking_engine.py --port N [--ready-after S]`.

Standard library only. Chat completions (tools too), completions, embeddings, responses, and Anthropic
messages, streamed or not. What the last message says decides: `tool` calls one, `refuse` is answered 400,
`slow` begins
after a second, `endless` streams until the client leaves. `GET /_stats` tells how many streams were left.
"""

from __future__ import annotations

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ("one ", "two ", "three")
CALL = {"name": "weather", "arguments": '{"city": "Oslo"}'}
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
READY = threading.Event()
pause = threading.Event().wait
"""Nobody sets it: a wait of so many seconds."""
LEFT = [0]


def said(body: dict[str, Any]) -> str:
    """The last message's text, whatever the protocol."""
    found = body.get("messages") or body.get("input") or body.get("prompt") or ""
    last = found[-1] if isinstance(found, list) and found else found
    text = last.get("content", "") if isinstance(last, dict) else last
    return text if isinstance(text, str) else json.dumps(text)


def chat(body: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The answer, and the same as events."""
    base = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
    call = {"id": "call_1", "type": "function", "function": CALL}
    if said(body) == "tool":
        message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [call]}
        deltas: list[dict[str, Any]] = [{"role": "assistant", "tool_calls": [{"index": 0, **call}]}]
    else:
        message = {"role": "assistant", "content": "".join(WORDS)}
        deltas = [{"role": "assistant", "content": word} for word in WORDS]
    reason = "tool_calls" if said(body) == "tool" else "stop"
    whole = {
        **base,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": USAGE,
    }
    head = {**base, "object": "chat.completion.chunk"}
    events: list[Any] = [
        {**head, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas
    ]
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": USAGE})
    return whole, events


def completion(body: dict[str, Any]) -> tuple[Any, list[Any]]:
    base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}

    def choice(text: str) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}]}

    return {**choice("".join(WORDS)), "usage": USAGE}, [choice(word) for word in WORDS]


def embeddings(body: dict[str, Any]) -> tuple[Any, list[Any]]:
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [{"object": "embedding", "index": n, "embedding": [0.5, -0.5]} for n, _ in enumerate(inputs)]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}, []


def responses(body: dict[str, Any]) -> tuple[Any, list[Any]]:
    part = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    whole = {
        "id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "status": "completed",
        "output": [item], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8,
                  "input_tokens_details": {"cached_tokens": 0},
                  "output_tokens_details": {"reasoning_tokens": 0}},
    }  # fmt: skip
    events: list[Any] = [
        {"type": "response.output_text.delta", "sequence_number": n, "item_id": "msg_1", "output_index": 0,
         "content_index": 0, "delta": word, "logprobs": []}
        for n, word in enumerate(WORDS, 1)
    ]  # fmt: skip
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    item_begun = {**item, "status": "in_progress", "content": []}
    part_begun = {**part, "text": ""}
    events[:0] = [
        {"type": "response.created", "sequence_number": 0, "response": begun},
        {"type": "response.output_item.added", "sequence_number": 0, "output_index": 0, "item": item_begun},
        {"type": "response.content_part.added", "sequence_number": 0, "item_id": "msg_1", "output_index": 0,
         "content_index": 0, "part": part_begun},
    ]  # fmt: skip
    events.append({"type": "response.completed", "sequence_number": 9, "response": whole})
    return whole, events


def messages(body: dict[str, Any]) -> tuple[Any, list[Any]]:
    tool = said(body) == "tool"
    block: dict[str, Any] = {"type": "text", "text": "".join(WORDS)}
    if tool:
        block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
    whole = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [block],
        "stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 3},
    }  # fmt: skip
    empty = {**block, "input": {}} if tool else {"type": "text", "text": ""}
    pieces = [CALL["arguments"]] if tool else WORDS
    kind, field = ("input_json_delta", "partial_json") if tool else ("text_delta", "text")
    events: list[Any] = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": kind, field: piece}}
            for piece in pieces
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": 3},
        },
        {"type": "message_stop"},
    ]
    return whole, events


ROUTES = {
    "/v1/chat/completions": chat, "/v1/completions": completion, "/v1/embeddings": embeddings,
    "/v1/responses": responses, "/v1/messages": messages,
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Nothing: the tests read what they need."""

    def document(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/_stats":
            self.document({"left": LEFT[0]})
        elif READY.is_set():
            self.document({"status": "ok"})
        else:
            self.document({"status": "loading"}, 503)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if said(body) == "refuse":
            self.document({"detail": "what is asked for is not right"}, 400)
            return
        if said(body) == "slow":
            pause(1)
        whole, events = ROUTES[self.path](body)
        if not body.get("stream"):
            self.document(whole)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        named = self.path in ("/v1/responses", "/v1/messages")
        try:
            while said(body) == "endless":
                self.event(events[0], named=named)
                pause(0.02)
            for event in events:
                self.event(event, named=named)
            if not named:
                self.chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            LEFT[0] += 1
            self.close_connection = True

    def event(self, value: dict[str, Any], *, named: bool) -> None:
        name = f"event: {value['type']}\n" if named else ""
        self.chunk(f"{name}data: {json.dumps(value)}\n\n".encode())

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ready-after", type=float, default=0.0)
    given = parser.parse_args()
    threading.Timer(given.ready_after, READY.set).start()
    ThreadingHTTPServer(("127.0.0.1", given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
