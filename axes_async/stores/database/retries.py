"""Steps that are begun anew: after a deadlock, a lock that could not be had, or a connection that was lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import uniform
from typing import TypeVar

from django.db import Error, IntegrityError, InterfaceError, OperationalError, connections

from axes_async.errors import StoreUnavailable

T = TypeVar("T")

STATE_PATIENCE = 0.25
"""Seconds that a step waits in all for those who change who decides."""

PATIENCE = 1.0
"""Seconds in which a step is begun anew: others may hold its counters, one after the other."""

TRIES = 8
"""How often a step is begun at most."""

PAUSE = 0.01
"""Seconds that a step waits at most before it is begun anew, so that those which met do not meet again."""

PASSING = {"40001", "40P01", "55P03", 1205, 1213, 1020}
"""Errors that another try may not meet: a deadlock, a lock not to be had, a row that changed. PostgreSQL's, MySQL's."""


class Waits:
    """How long a step may still wait for locks, all its tries together."""

    def __init__(self) -> None:
        self.for_state, self.give_up = STATE_PATIENCE, time.monotonic() + PATIENCE

    @property
    def ms(self) -> int:
        """Milliseconds that the next try may wait for a lock. Raises ``StoreUnavailable`` if there are none left."""
        left = min(self.for_state, self.give_up - time.monotonic())
        if left < 0.001:
            raise StoreUnavailable("Others hold what says who decides, or the counters.")
        return int(left * 1000)

    @contextmanager
    def of_state(self) -> Iterator[None]:
        """Count what is waited in vain in the block, for those who change who decides."""
        began = time.monotonic()
        try:
            yield
        except Error:
            self.for_state -= time.monotonic() - began
            raise


class Again(Exception):
    """Roll the step back, do ``first`` outside of its transaction, and begin the step anew."""

    def __init__(self, first: Callable[[Waits], object]) -> None:
        super().__init__("The step has to be begun anew.")
        self.first = first


def persist(work: Callable[[str, Waits], T], using: str) -> T:
    """Do ``work`` on the database ``using``, and again after what may pass.

    :raises django.db.Error: what does not pass, or has not passed in time.
    """
    waits = Waits()
    first: Callable[[Waits], object] | None = None
    for number in range(1, TRIES + 1):
        try:
            if first is not None:
                first(waits)
            return work(using, waits)
        except Again as again:
            first = again.first
        except Error as error:
            is_late = number == TRIES or time.monotonic() > waits.give_up
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
