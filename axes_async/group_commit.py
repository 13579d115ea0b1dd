"""Group commit: steps that threads of one process have for the rows at the same time share a transaction.

Each step holds the cursor, so threads could only do them one after the other. The first to come does those of all who
are waiting by then, in the order they came; the others need no connection and no lock of the database meanwhile.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import OperationalError

from axes_async.cursor import database, held_cursor
from axes_async.errors import StoreReturned
from axes_async.stores.autonomous import apart, shares_transaction

if TYPE_CHECKING:
    from axes_async.models import DrainCursor

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST = 64
"""Steps in one transaction at most."""


def in_group(step: Callable[[DrainCursor], T]) -> T:
    """Return what ``step`` returns, once that is committed; it is given the cursor, held.

    A step may raise ``StoreReturned`` before it has written anything. Where a step fails, all of its transaction are
    done once more, each in one of its own, so that no thread meets the error of another's; where the commit fails none
    is, since it may have been done. A step that is part of its caller's transaction is done alone: what becomes of that
    is no other thread's matter.
    """
    if shares_transaction():
        return _alone(step)
    return _group(os.getpid(), database()).do(step)


@cache
def _group(pid: int, using: str) -> Group:
    """Return the group of this process: a forked one must not wait for threads of its parent."""
    return Group()


class Waiting:
    """A step whose thread waits for its turn."""

    __slots__ = ("error", "is_done", "leads", "result", "step", "woken")

    def __init__(self, step: Callable[[DrainCursor], Any]) -> None:
        """Nothing has come of it yet."""
        self.step = step
        self.result: Any = None
        self.error: Exception | None = None
        self.woken, self.leads, self.is_done = Event(), False, False


class Group:
    """Threads with steps for the rows of one database, one of which does them at any time."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._lock = Lock()
        self._waiting: list[Waiting] = []
        self._leader: Waiting | None = None

    def do(self, step: Callable[[DrainCursor], T]) -> T:
        """See ``in_group``."""
        mine = Waiting(step)
        with self._lock:
            self._waiting.append(mine)
            if self._leader is None:
                self._appoint()
        try:
            mine.woken.wait()
            if self._leader is mine:
                apart(self._lead)(mine)
        except BaseException:
            self._leave(mine)
            raise
        if not mine.is_done:
            return apart(_alone)(step)
        if mine.error is not None:
            raise mine.error
        result: T = mine.result
        return result

    def _lead(self, mine: Waiting) -> None:
        """Do all steps that wait by the time the cursor is held, and leave later ones to the first of them.

        Where another thread does this for the leader, it goes on to the end, also if the leader is interrupted.
        """
        with self._lock:
            mine.leads = self._leader is mine
        if not mine.leads:
            return
        batch: list[Waiting] = []
        try:
            self._do_together(batch)
        except Exception as error:
            self._take(batch)
            if len(batch) == 1:
                raise
            log.warning("Steps of several threads have failed together (%s).", error)
        finally:
            self._take(batch)
            with self._lock:
                self._appoint()
            for one in batch:
                one.woken.set()

    def _do_together(self, batch: list[Waiting]) -> None:
        with held_cursor() as cursor:
            self._take(batch)
            for one in batch:
                try:
                    one.result = one.step(cursor)
                except StoreReturned as error:
                    one.error = error
            lost = OperationalError("It is not known whether this was committed.")
            for one in batch:
                one.is_done, one.error = True, one.error or lost
        for one in batch:
            one.error = None if one.error is lost else one.error

    def _take(self, batch: list[Waiting]) -> None:
        """Put those who wait into ``batch``, once."""
        if not batch:
            with self._lock:
                batch += self._waiting[:MOST]
                del self._waiting[:MOST]

    def _appoint(self) -> None:
        self._leader = self._waiting[0] if self._waiting else None
        if self._leader is not None:
            self._leader.woken.set()

    def _leave(self, mine: Waiting) -> None:
        """Give the turn on, if the thread was interrupted before it took it."""
        with self._lock:
            if mine in self._waiting and not mine.leads:
                self._waiting.remove(mine)
                if self._leader is mine:
                    self._appoint()


def _alone(step: Callable[[DrainCursor], T]) -> T:
    with held_cursor() as cursor:
        return step(cursor)
