"""Settlements that no store could do: a thread tries them again, so that what happened still counts."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from threading import Lock, Thread
from time import monotonic, sleep

from django.db import connections

from axes_async.delivery import publisher
from axes_async.errors import StoreUnavailable
from axes_async.stores.factory import is_eager
from axes_async.stores.results import StepResult

log = logging.getLogger(__name__)

SECONDS = 60.0
"""How long a settlement is tried again: a database that fails over is away for less."""

PAUSE = 0.2
"""Seconds between two tries while no store answers."""

MOST = 10_000
"""Settlements of this process that wait at most; each is about 2 kB."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A settlement, what is to be told of its result, and its event as a line of the log."""

    settle: Callable[[], StepResult]
    tell: Callable[[StepResult], object]
    line: str
    since: float


def try_later(settle: Callable[[], StepResult], tell: Callable[[StepResult], object], line: str) -> bool:
    """Have ``settle`` done as soon as a store answers; return False if it will not be tried.

    A site's tests share one transaction with their store, so nothing is done behind it.
    """
    return not is_eager() and _queue(os.getpid()).add(Unsettled(settle, tell, line, monotonic()))


class _Queue:
    """Settlements that wait, and a thread as long as there are any."""

    def __init__(self) -> None:
        self.waiting: deque[Unsettled] = deque()
        self.lock = Lock()
        self.thread: Thread | None = None

    def add(self, one: Unsettled) -> bool:
        with self.lock:
            if len(self.waiting) >= MOST:
                return False
            if self.thread is None:
                thread = Thread(target=self._serve, name="axes-async-unsettled", daemon=True)
                try:
                    thread.start()  # It waits for the lock.
                except RuntimeError:  # The process has as many threads as it may.
                    return False
                self.thread = thread
            self.waiting.append(one)
        return True

    def _serve(self) -> None:
        while (one := self._next()) is not None:
            if not _is_done(one):
                self.waiting.append(one)
                sleep(PAUSE)
        connections.close_all()

    def _next(self) -> Unsettled | None:
        with self.lock:
            if self.waiting:
                return self.waiting.popleft()
            self.thread = None
            return None


def _is_done(one: Unsettled) -> bool:
    """Try it once; return whether it needs no other try."""
    try:
        result = one.settle()
    except StoreUnavailable as error:
        if monotonic() < one.since + SECONDS:
            return False
        log.error("Given up, no store answered for %d s (%s): %s", SECONDS, error, one.line)
        return True
    except Exception:
        log.exception("Given up: %s", one.line)
        return True
    log.warning("Counted or recorded after all: %s", one.line)
    try:
        publisher.follow_up(result)
        one.tell(result)
    except Exception:
        log.exception("What follows from it did not go through: %s", one.line)
    return True


@cache
def _queue(pid: int) -> _Queue:
    """Return what waits in this process; a forked one has nothing to wait for."""
    return _Queue()
