"""Writes the tables of docs/reference/http-api.md: paths, what they need, and the key's scope they take.

`python -m router.control.api_page` rewrites what stands between the two marks in that page; `--check` changes
nothing and exits 1 when it is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from config.generated import refresh, replaced
from registry.capability import ENDPOINTS, Endpoint, Protocol
from router.control.openapi import document
from router.keys import Need, need_of

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "reference" / "http-api.md"

_SCOPES: Final[Mapping[Need, str]] = {
    Need.NOTHING: "none",
    Need.INFERENCE: "any",
    Need.READ: "any",
    Need.ADMIN: "admin",
}

_SPEAKS: Final[Mapping[Protocol, str]] = {
    Protocol.OPENAI: "data events, `data: [DONE]`; comments while the model loads",
    Protocol.RESPONSES: "Responses events; comments while the model loads",
    Protocol.ANTHROPIC: "Messages events; `ping` while the model loads",
}


def tables() -> str:
    """What stands between the marks, in Markdown."""
    return "\n".join(("## Inference\n", *_inference(), "", "## Control\n", *_control()))


def _inference() -> Iterator[str]:
    yield "| path | also as | needs | streams |"
    yield "| --- | --- | --- | --- |"
    names: dict[str, list[str]] = {}
    for path, endpoint in ENDPOINTS.items():
        names.setdefault(endpoint.path, []).append(path)
    for path, every in names.items():
        twins = ", ".join(f"`{name}`" for name in every if name != path) or "none"
        endpoint = ENDPOINTS[path]
        needs = ", ".join(f"`{one}`" for one in sorted(endpoint.needs)) or "any model"
        yield f"| `{path}`{_form(endpoint)} | {twins} | {needs} | {_stream(endpoint)} |"


def _form(endpoint: Endpoint) -> str:
    return " (multipart/form-data)" if endpoint.multipart else ""


def _stream(endpoint: Endpoint) -> str:
    return _SPEAKS[endpoint.protocol] if endpoint.streams else "none"


def _control() -> Iterator[str]:
    yield "| method and path | key | what | parameters |"
    yield "| --- | --- | --- | --- |"
    for path, verbs in document("")["paths"].items():
        key = _SCOPES[need_of(path.replace("{id}", "x"))]
        for verb, said in verbs.items():
            yield f"| `{verb.upper()} {path}` | {key} | {said['summary']} | {_parameters(said)} |"


def _parameters(said: Mapping[str, Any]) -> str:
    query = [
        f"`{one['name']}`: {one['description']}" for one in said.get("parameters", ()) if one["in"] == "query"
    ]
    body = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    keys = [f"`{name}`" for name in body.get("properties", ())]
    return "<br>".join((*query, *((f"body: {', '.join(keys)}",) if keys else ()))) or "none"


def main(arguments: Sequence[str]) -> int:
    """Rewrite the page, or with `--check` say whether it is fresh. Returns the exit status."""
    wanted = replaced(PAGE.read_text(encoding="utf-8"), tables(), "reference")
    return refresh(PAGE, wanted, arguments, source="the table of paths", target="reference")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
