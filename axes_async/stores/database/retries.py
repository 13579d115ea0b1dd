"""Steps that are begun anew: after a deadlock, a lock that could not be had, or a connection that was lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import uniform
from typing import TypeVar

from django.db import Error, IntegrityError, InterfaceError, OperationalError, connections

from axes_async.errors import StoreUnavailable

T = TypeVar("T")

PATIENCE = 1.0
"""Seconds in which a step is begun anew."""

TRIES = 8
"""How often a step is begun at most."""

PAUSE = 0.01
"""Seconds that a step waits at most before it is begun anew, so that those which met do not meet again."""

PASSING = {"40001", "40P01", "55P03", 1205, 1213, 1020}
"""Errors that another try may not meet: a deadlock, a lock not to be had, a row that changed. PostgreSQL's, MySQL's."""


class Again(Exception):
    """Roll the step back, do ``first`` outside of its transaction, and begin the step anew."""

    def __init__(self, first: Callable[[], object]) -> None:
        super().__init__("The step has to be begun anew.")
        self.first = first


def persist(work: Callable[[str], T], using: str) -> T:
    """Do ``work`` on the database ``using``, and again after what may pass.

    :raises django.db.Error: what does not pass, or has not passed in time.
    """
    give_up = time.monotonic() + PATIENCE
    first: Callable[[], object] | None = None
    for number in range(1, TRIES + 1):
        try:
            if first is not None:
                first()
            return work(using)
        except Again as again:
            first = again.first
        except Error as error:
            is_late = number == TRIES or time.monotonic() > give_up
            if is_late or not _may_pass(error, using, is_first=number == 1):
                raise
            time.sleep(uniform(0, PAUSE))  # noqa: S311  (nobody gains by guessing it)
    raise StoreUnavailable("The database has changed its mind too often.")


def _may_pass(error: Error, using: str, *, is_first: bool) -> bool:
    connection = connections[using]
    if connection.in_atomic_block:
        return False
    if connection.connection is not None and not connection.is_usable():
        connection.close()
    if is_first and isinstance(error, OperationalError | InterfaceError | IntegrityError):
        return True  # A connection that was lost meanwhile, or an event that somebody has applied at the same time.
    cause = error.__cause__
    codes = {getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None), error.args[0] if error.args else None}
    return bool(codes & PASSING)
