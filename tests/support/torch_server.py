"""A small chat server on a GPU by transformers, for tests of memory that is really a device's.

`torch_server.py --port N --model FOLDER --name ID [--ballast BYTES]`: loads the checkpoint onto `cuda:0` and
holds BYTES more of it. Answers `/health`, `/v1/models` and `/v1/chat/completions`, streamed or not, greedily.
"""

# Run by an interpreter that has torch, which the one that type-checks this need not have.
# mypy: ignore-errors

from __future__ import annotations

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--ballast", type=int, default=0)
    words = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(words.model)
    model = AutoModelForCausalLM.from_pretrained(words.model).to("cuda:0").eval()
    ballast = torch.zeros(words.ballast, dtype=torch.uint8, device="cuda:0")
    torch.cuda.synchronize()
    print(f"holding {ballast.numel()} bytes on {torch.cuda.get_device_name(0)}", flush=True)
    one_at_a_time = threading.Lock()

    def pieces(body):
        encoded = tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to("cuda:0")
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        options = {"max_new_tokens": body.get("max_tokens", 120), "do_sample": False, "streamer": streamer}
        with one_at_a_time:
            worker = threading.Thread(target=model.generate, kwargs={**encoded, **options})
            worker.start()
            yield from streamer
            worker.join()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if self.path == "/v1/models":
                self.answer({"object": "list", "data": [{"id": words.name, "object": "model"}]})
            else:
                self.answer({"status": "ok"})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if body.get("stream"):
                self.stream(body)
                return
            message = {"role": "assistant", "content": "".join(pieces(body))}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.answer({"object": "chat.completion", "model": words.name, "choices": [choice]})

        def stream(self, body):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for piece in pieces(body):
                choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
                event = {"object": "chat.completion.chunk", "model": words.name, "choices": [choice]}
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True

        def answer(self, value):
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    ThreadingHTTPServer(("127.0.0.1", words.port), Handler).serve_forever()


main()
