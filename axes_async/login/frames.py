"""How the code that has a password looked at goes on: it is still at it, it has returned, or it was stopped.

Nobody says so: Django tells of failures, and of logins, but not of a check that a task gave up, nor of one that was
right and logs nobody in. Python keeps it: a frame knows the instruction at which it has stopped.
"""

from __future__ import annotations

import asyncio
import dis
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from traceback import walk_tb
from types import FrameType
from typing import Any

RETURNS = {dis.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST") if name in dis.opmap}


def has_returned(frame: FrameType) -> bool:
    """Return whether the code has come to its end; not if it is at work, or an exception has ended it."""
    return frame.f_code.co_code[frame.f_lasti] in RETURNS


def is_running(frame: FrameType) -> bool:
    """Return whether a thread is in the code."""
    for at in sys._current_frames().values():
        place: FrameType | None = at
        while place is not None and place is not frame:
            place = place.f_back
        if place is not None:
            return True
    return False


def was_ended_by(frame: FrameType, error: BaseException | None) -> bool:
    """Return whether ``error``, or one behind it, has left the code, and nothing was cancelled."""
    places = (place for each in _behind(error) for place, _ in walk_tb(each.__traceback__))
    return not tells_of_stop(error) and any(place is frame for place in places)


def tells_of_stop(error: BaseException | None) -> bool:
    """Return whether something was cancelled: of a ``TimeoutError``, only that of ``asyncio.timeout`` tells so."""
    return any(isinstance(each, asyncio.CancelledError) for each in _behind(error))


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """Yield ``error`` and all that led to it, each once: some are their own cause."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]
            waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()


def code_that_asks() -> FrameType:
    """Return the code that asks a backend, whose method calls this: Django's, or whatever does it in its place."""
    caller = sys._getframe(2)
    frame: FrameType | None = caller
    while frame is not None and frame.f_globals.get("__name__") != "django.contrib.auth":
        frame = frame.f_back
    return frame or caller


def current_task() -> asyncio.Task[Any] | None:
    """Return the task that runs here, if an event loop does."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class ViewTask(asyncio.Task[Any]):
    """The task of a view. It tells if it is cancelled, as the view itself does with ``asyncio.timeout``."""

    def __init__(self, serving: Coroutine[Any, Any, Any], on_cancel: Callable[[ViewTask], None], context: Context):
        super().__init__(serving, context=context)
        self._on_cancel = on_cancel

    def cancel(self, msg: Any = None) -> bool:
        """Tell of it, and cancel the task."""
        if not self.done():
            self._on_cancel(self)
        return super().cancel(msg)
