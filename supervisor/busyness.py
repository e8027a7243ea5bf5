"""Whether an engine works although none of our requests is out: asked once, when it seems to be idle.

Somebody may use its port without us, and some answers go on after their request has ended (vLLM's background
responses).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import httpx
import structlog

from registry.engine import BusyPage
from supervisor.ports import ChildRecord
from supervisor.readiness import loopback_client
from supervisor.tasks import TaskScope

log = structlog.get_logger("modelyard.busyness")

MOST = 4 * 2**20
"""Bytes of a page: vLLM's metrics are some 100 KB."""


def at_work(text: str, counts: Sequence[str]) -> int | None:
    """Requests that the page speaks of, waiting ones included; None when it speaks of none of *counts*."""
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            return None
        numbers = [found[name] for name in counts if isinstance(found.get(name), int | float)]
    else:
        numbers = [value for line in text.splitlines() if (value := _gauge(line, counts)) is not None]
    return round(sum(numbers)) if numbers else None


def _gauge(line: str, names: Sequence[str]) -> float | None:
    name = line.partition("{")[0].partition(" ")[0]
    if name not in names:
        return None
    try:
        return float(line.rpartition(" ")[2])
    except ValueError:
        return None


class HttpBusyness:
    """`Busyness` over HTTP."""

    def __init__(self, *, tasks: TaskScope) -> None:
        self._tasks = tasks

    def ask(self, record: ChildRecord, page: BusyPage, answered: Callable[[int | None], None]) -> None:
        """Answers later: how many requests it works at; None when it does not say."""
        self._tasks.spawn(self._ask(record, page, answered), name=f"busyness {record.model}")

    async def _ask(self, record: ChildRecord, page: BusyPage, answered: Callable[[int | None], None]) -> None:
        found: int | None = None
        try:
            async with loopback_client() as http:
                headers = {"Authorization": f"Bearer {record.key}"} if record.key else {}
                answer = await http.get(f"http://127.0.0.1:{record.port}{page.path}", headers=headers)
            if answer.status_code == 200 and len(answer.content) <= MOST:
                found = at_work(answer.text, page.counts)
        except httpx.HTTPError as error:
            log.debug("busyness_unknown", model=record.model, error=str(error))
        answered(found)
