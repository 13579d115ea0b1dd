"""Autonomous transactions: what is written in a request stays written, also if the request comes to nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from django.db import close_old_connections, connections

from axes_async.cursor import database

P = ParamSpec("P")
T = TypeVar("T")


def apart(step: Callable[P, T]) -> Callable[P, T]:
    """Have ``step`` on a connection of its own where the caller is in a transaction: that may be rolled back.

    A failure must be counted also if the request that made it comes to nothing (``ATOMIC_REQUESTS``). The transaction
    that Django's ``TestCase`` wraps around a test is none of the caller's. On SQLite a second connection could only
    wait for the first to end, so there the step shares the fate of the caller's transaction.
    """

    @wraps(step)
    def run(*args: P.args, **options: P.kwargs) -> T:
        if not _in_transaction() or shares_transaction():
            return step(*args, **options)

        def elsewhere() -> T:
            close_old_connections()
            try:
                return step(*args, **options)
            finally:
                close_old_connections()  # As at the end of a request, by ``CONN_MAX_AGE``.

        return _elsewhere(os.getpid()).submit(elsewhere).result()

    return run


def shares_transaction() -> bool:
    """Return whether a step that begins now is going to be part of the caller's transaction."""
    return connections[database()].vendor == "sqlite" and _in_transaction()


def _in_transaction() -> bool:
    blocks = connections[database()].atomic_blocks
    return not all(getattr(block, "_from_testcase", False) for block in blocks)


@cache
def _elsewhere(pid: int) -> ThreadPoolExecutor:
    """Return a thread of this process; a forked one has to start its own."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="axes-async-rows")
