"""What a process does behind its logins: things wait in a line, and a thread serves them as long as there are any."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from threading import Lock, Thread
from typing import Generic, TypeVar

from django.db import connections

from axes_async.stores.factory import is_eager

T = TypeVar("T")


class Backlog(Generic[T]):
    """A line, and its thread; a forked process begins with an empty one.

    :param name: what the thread is called.
    :param serve: does what one thing waits for, and returns whether that is done; else it waits anew, as the last.
        It sleeps by ``time.sleep``, which gevent may replace after an import of ``sleep`` alone.
    :param most: how many wait at most.
    :param rests: returns how many seconds a new thread rests before it serves. One that finds everything done ends, so
        without a rest each thing that comes would start another.
    """

    def __init__(
        self, name: str, serve: Callable[[T], bool], *, most: int, rests: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.name, self.serve, self.most, self.rests = name, serve, most, rests
        self._start_over()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start_over)

    def _start_over(self) -> None:
        self._waiting: deque[T] = deque()
        self._lock = Lock()
        self._thread: Thread | None = None

    def add(self, one: T) -> bool:
        """Let ``one`` wait; return False if there is no room for it, or no thread to be had.

        A site's tests share one transaction with their store, so nothing is done behind it.
        """
        if is_eager():
            return False
        with self._lock:
            if len(self._waiting) >= self.most:
                return False
            if self._thread is None or not self._thread.is_alive():
                thread = Thread(target=self._serve_all, name=self.name, daemon=True)
                try:
                    thread.start()  # It waits for the lock.
                except RuntimeError:  # The process has as many threads as it may.
                    return False
                self._thread = thread
            self._waiting.append(one)
        return True

    def _serve_all(self) -> None:
        time.sleep(self.rests())
        while (one := self._first()) is not None:
            # Should it raise: the thread ends, the next thing starts another, and nothing is in its way.
            is_done = True
            try:
                is_done = self.serve(one)
            finally:
                self._waiting.popleft()
                if not is_done:
                    self._waiting.append(one)
        connections.close_all()

    def _first(self) -> T | None:
        with self._lock:
            if self._waiting:
                return self._waiting[0]
            self._thread = None
            return None
