"""What one would write first: aiohttp on both sides on uvloop. `python bench/aiohttp_proxy.py PORT UPSTREAM`.

It routes by the body's model and does nothing else: no limits, retries, metrics or log.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping

import aiohttp
import uvloop
from aiohttp import web

SESSION = web.AppKey("session", aiohttp.ClientSession)
NOT_FORWARDED = {
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


def passing(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Fields that are not about one connection."""
    return [(k, v) for k, v in headers.items() if k.lower() not in NOT_FORWARDED]


async def forward(request: web.Request) -> web.StreamResponse:
    """One request."""
    body = await request.read()
    upstreams = {"mock": f"http://127.0.0.1:{sys.argv[2]}"}
    base = upstreams.get(json.loads(body)["model"])
    if base is None:
        return web.json_response({"error": "unknown model"}, status=404)
    session = request.app[SESSION]
    url = base + request.rel_url.raw_path_qs
    async with session.request(request.method, url, data=body, headers=passing(request.headers)) as answer:
        if answer.content_length is not None:
            return web.Response(
                status=answer.status, headers=passing(answer.headers), body=await answer.read()
            )
        response = web.StreamResponse(status=answer.status, headers=passing(answer.headers))
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response


async def session(app: web.Application) -> AsyncIterator[None]:
    """The client side, as long as the app lives."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=timeout) as opened:
        app[SESSION] = opened
        yield


def main() -> None:
    """Serve until killed."""
    app = web.Application(client_max_size=2**26)
    app.cleanup_ctx.append(session)
    app.router.add_post("/{path:.*}", forward)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, backlog=4096)


if __name__ == "__main__":
    main()
