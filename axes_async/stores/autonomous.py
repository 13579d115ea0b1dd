"""Autonomous transactions: what a step writes in a request stays written, also if the request is rolled back."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import cache, partial
from threading import Condition, Semaphore, Thread
from time import monotonic
from typing import Any, TypeVar

from django.db import close_old_connections, connections

from axes_async.errors import StoreBusy, StoreUnavailable
from axes_async.stores.shared import shares_transaction

T = TypeVar("T")

THREADS = 32
"""Steps of this process that run beside their callers' transactions at one time."""

WAIT = 10.0
"""Seconds that a caller beyond these waits for a thread. It is this process that keeps it waiting, and no database."""

PATIENCE = 3.0
"""Seconds that a caller waits for its step then; the statements of a step have shorter bounds of their own."""

IDLE = 2.0
"""Seconds after which a thread without work ends, and its connection with it.

So long a connection is kept whatever ``CONN_MAX_AGE`` says: the steps of one login would open one each.
"""


def autonomous(step: Callable[[], T], *, using: str) -> T:
    """Run ``step`` on a connection of its own if the caller is in a transaction, so that no rollback undoes it.

    A failure must be counted also if the request that made it comes to nothing (``ATOMIC_REQUESTS``). So does a step of
    a caller that has no connection open: hundreds of logins at once are not to open as many. Two cases share the
    caller's transaction: on SQLite, a second connection could only wait for the first; in a Django ``TestCase``, a
    second connection would see nothing of the test, and what it wrote would stay. ``shared.py`` has what follows.

    Where the site's connections are pooled (``OPTIONS["pool"]``), those threads have none of that pool: callers may
    hold all of it while they wait. There are as many threads at most as the pool has connections.

    :raises StoreUnavailable: if the step could not be run in time. It may be done later.
    """
    connection = connections[using]
    is_idle = connection.connection is not None and not connection.in_atomic_block and connection.get_autocommit()
    if shares_transaction(connection) or is_idle:
        return step()
    pooled: Any = getattr(connection, "pool", None)
    if not pooled:
        return _pool(os.getpid()).run(step)
    return _pool(os.getpid(), min(THREADS, pooled.max_size)).run(partial(_beside_the_pool, step, using))


def _beside_the_pool(step: Callable[[], T], using: str) -> T:
    connection = connections[using]
    options = connection.settings_dict["OPTIONS"]
    if "pool" in options:
        own = {name: value for name, value in options.items() if name != "pool"}
        connections[using] = type(connection)({**connection.settings_dict, "OPTIONS": own}, using)
    return step()


class _Pool:
    """Threads that are started when there is work for them, and end when there is none.

    They are daemons, unlike those of ``ThreadPoolExecutor``: a database that never answers must not keep a process from
    ending.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = THREADS if most is None else most
        self.work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self.places, self.changed = Semaphore(self.most), Condition()
        self.threads = self.idle = 0

    def run(self, step: Callable[[], T]) -> T:
        if not self.places.acquire(timeout=WAIT):
            raise StoreBusy("All threads that have a database connection of their own are at work.")
        future: Future[T] = Future()
        future.add_done_callback(lambda _: self.places.release())
        with self.changed:
            self.work.append((future, step))
            if self.idle >= len(self.work):
                self.changed.notify()
            elif self.threads < self.most and not self._start() and not self.threads:
                self.work.pop()
                future.cancel()
                raise StoreBusy("The process has as many threads as it may.")
        try:
            return future.result(timeout=PATIENCE)
        except FutureTimeoutError:
            if future.done():
                raise  # It is the step that has raised it.
            raise StoreUnavailable(f"The database has not answered for {PATIENCE} s.") from None

    def _start(self) -> bool:
        try:
            Thread(target=self._serve, name="axes-async-step", daemon=True).start()
        except RuntimeError:  # The process has as many threads as it may.
            return False
        self.threads += 1  # It waits for the lock.
        return True

    def _serve(self) -> None:
        opened = monotonic()
        while (item := self._next()) is not None:
            if monotonic() - opened > IDLE:
                close_old_connections()
                opened = monotonic()
            _do(*item)
            del item  # What the step has returned is not to live until the next one.

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self.changed:
            self.idle += 1
            self.changed.wait_for(lambda: self.work, timeout=IDLE)
            self.idle -= 1
            if self.work:
                return self.work.popleft()
            self.threads -= 1
        connections.close_all()
        return None


def _do(future: Future[Any], step: Callable[[], Any]) -> None:
    from axes_async.stores.factory import is_test_run

    try:
        try:
            result = step()
        finally:
            if is_test_run():  # A test database that somebody is connected to cannot be dropped.
                close_old_connections()
    except BaseException as error:  # noqa: BLE001  (it is the caller's)
        future.set_exception(error)
    else:
        future.set_result(result)


@cache
def _pool(pid: int, most: int | None = None) -> _Pool:
    """Return the threads of this process, ``most`` of them; a forked one has to start its own."""
    return _Pool(most)
