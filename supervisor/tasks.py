"""Tasks that somebody holds: the one place that may call `loop.create_task`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

log = structlog.get_logger("modelyard.tasks")


class Spawn(Protocol):
    """`TaskScope.spawn`, as those who are given it see it: starts a task that somebody holds."""

    def __call__(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]: ...


class TaskScope:
    """Owns background tasks: keeps a reference, logs a crash, and cancels what is left on `close`.

    asyncio itself only keeps weak references, so a task nobody holds may be collected half way.
    """

    def __init__(self, on_crash: Callable[[str, BaseException], None] | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_crash = on_crash

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run *work* as a task named *name* until it ends or the scope closes."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("task_crashed", task=task.get_name(), error=repr(error), exc_info=error)
            if self._on_crash is not None:
                self._on_crash(task.get_name(), error)

    async def close(self) -> None:
        """Cancel everything and wait until it has ended."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
