"""Turns of the tasks of one request: ``asyncio.gather`` over ``aauthenticate()`` would have them share one attempt.

An attempt is looked up by its request, so tasks that try passwords side by side are let in one after the other.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import Any

PAUSE = 0.004
"""Seconds between two looks at whether the turn of another task is over."""


class Turn:
    """The time in which one task tries a password; tasks that it starts meanwhile may go first."""

    __slots__ = ("around", "task")

    def __init__(self, task: asyncio.Task[Any] | None, around: Turn | None) -> None:
        """Begin the turn of ``task``, within the turn ``around`` it."""
        self.task, self.around = task, around

    @property
    def is_over(self) -> bool:
        """Whether the task has ended, and its turn with it."""
        return self.task is not None and self.task.done()


_mine: ContextVar[Turn | None] = ContextVar("axes_async_turn", default=None)
"""The turn of the task that asks, or of the one that has started it."""


class Turns:
    """The turns of one request."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        """Begin with nobody's turn."""
        self.now: Turn | None = None

    async def take(self, *, wait: float) -> bool:
        """Wait for up to ``wait`` seconds until no other task has its turn; return whether it came."""
        give_up = time.monotonic() + wait
        while self.now is not None and self.now is not _mine.get() and not self.now.is_over:
            if time.monotonic() > give_up:
                return False
            await asyncio.sleep(PAUSE)
        around = self.now if self.now is _mine.get() else None
        self.now = Turn(
            asyncio.current_task(), around
        )  # Without a pause since the look: no other task has run meanwhile.
        _mine.set(self.now)
        return True

    def back(self) -> None:
        """End the turn of the task that asks, if it is its turn, and go on with the one around it."""
        if self.now is not None and self.now is _mine.get():
            self.now = self.now.around
            _mine.set(self.now)

    def end(self) -> None:
        """End the turn of the task that asks, if it is its turn."""
        if self.now is not None and self.now is _mine.get():
            self.now = None
