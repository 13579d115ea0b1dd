"""Who decides: the one row of ``StoreState``, its locks, and the bounded transactions in which it is looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from django.db import Error, connections, transaction
from django.db.models import F

from axes_async import clock
from axes_async.models import StoreState
from axes_async.stores.database.retries import Waits

STATEMENT_MS = 1000
"""Milliseconds that one statement of a step may take in all, on PostgreSQL."""

FROZEN_MS = 5000
"""Milliseconds after which PostgreSQL ends a session that is silent in the middle of a step: its process is frozen."""

ONE = 1
"""The primary key of the one row."""

BOUNDS = {
    "postgresql": [
        f"""SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        SET LOCAL lock_timeout = {{wait_ms}};
        SET LOCAL statement_timeout = {STATEMENT_MS};
        SET LOCAL idle_in_transaction_session_timeout = {FROZEN_MS}"""
    ],
    "mysql": [
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET @axes_wait = @@SESSION.innodb_lock_wait_timeout, SESSION innodb_lock_wait_timeout = 1",
    ],
}
"""What a transaction begins with. At REPEATABLE READ, whoever has waited for a lock could only fail."""

SHARED = {"postgresql": "FOR SHARE", "mysql": "LOCK IN SHARE MODE"}

TIME = {
    "postgresql": "(EXTRACT(EPOCH FROM statement_timestamp()) * 1000)::bigint",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000",
}
"""The time at which a statement began, in epoch milliseconds. SQLite has no clock but that of this host."""


@dataclass(frozen=True, slots=True)
class DatabaseClock:
    """The time of the database, as a statement that began at ``started`` (``time.monotonic``) has told it."""

    ms: int
    started: float

    def now(self) -> int:
        """Return the time now, in epoch milliseconds."""
        if clock.fixed_ms is not None:
            return clock.fixed_ms()
        return self.ms + int((time.monotonic() - self.started) * 1000)


@contextmanager
def step_transaction(using: str, waits: Waits) -> Iterator[None]:
    """Run a step in a transaction in which nothing waits for long and every statement sees what is committed by then.

    MySQL counts in seconds, and waits for each lock for one. Inside a transaction of the caller it is a savepoint, and
    has the bounds and the isolation of that transaction.
    """
    connection = connections[using]
    begins, vendor, wait_ms = not connection.in_atomic_block, connection.vendor, waits.ms
    try:
        with transaction.atomic(using=using):
            if begins and vendor in BOUNDS:
                with connection.cursor() as cursor:
                    for sql in BOUNDS[vendor]:
                        cursor.execute(sql.format(wait_ms=wait_ms))
            yield
    finally:
        if begins and vendor == "mysql" and connection.connection is not None:
            with suppress(Error), connection.cursor() as cursor:
                cursor.execute("SET SESSION innodb_lock_wait_timeout = COALESCE(@axes_wait, 50)")


def shared_state(using: str) -> StoreState:
    """Return the state, locked to the end of the transaction: others may read it, and nobody changes it."""
    return shared_state_and_clock(using)[0]


def shared_state_and_clock(using: str) -> tuple[StoreState, DatabaseClock]:
    """Return the state, locked as by ``shared_state``, and the time."""
    if connections[using].vendor not in SHARED:
        # SQLite has one lock. A write takes it, and only before anything is read: see "SQLITE_BUSY_SNAPSHOT" there.
        _take_write_lock(using)
        return state_and_clock(using)
    return state_and_clock(using, SHARED[connections[using].vendor])


def exclusive_state(using: str) -> StoreState:
    """Return the state, locked to the end of the transaction: no step is at work, or begins."""
    if connections[using].vendor not in SHARED:
        return shared_state(using)
    return state_and_clock(using, "FOR UPDATE")[0]


def state_and_clock(using: str, lock: str = "") -> tuple[StoreState, DatabaseClock]:
    """Return the state as it is now, under the ``lock`` of a ``SELECT`` or without any, and the time."""
    connection = connections[using]
    table = connection.ops.quote_name(StoreState._meta.db_table)
    now = TIME.get(connection.vendor)
    sql = f"SELECT *, {now or 0} AS now_ms FROM {table} WHERE id = {ONE} {lock}"  # noqa: S608  (all of it is ours)
    while True:
        started = time.monotonic()
        for state in StoreState.objects.using(using).raw(sql):
            ms: int = state.now_ms if now else clock.now_ms()  # type: ignore[attr-defined]
            return state, DatabaseClock(int(ms), started)
        StoreState.objects.using(using).bulk_create([StoreState(pk=ONE)], ignore_conflicts=True)


def let_database_decide(using: str, waits: Waits, *, generation: int) -> None:
    """Have the database decide from now on, in a short transaction of its own.

    :param generation: only if the store has decided in this generation or an earlier one.
    """
    with step_transaction(using, waits), waits.of_state():
        rows = StoreState.objects.using(using).filter(pk=ONE, mode=StoreState.STORE, generation__lte=generation)
        if not rows.update(mode=StoreState.DATABASE):
            # A new site has no row yet: the step that made it was rolled back.
            first = StoreState(pk=ONE, mode=StoreState.DATABASE)
            StoreState.objects.using(using).bulk_create([first], ignore_conflicts=True)


def database_now(using: str) -> int:
    """Return the time by the database's clock, in epoch milliseconds."""
    if clock.fixed_ms is not None:
        return clock.fixed_ms()
    sql = TIME.get(connections[using].vendor)
    if sql is None:
        return clock.now_ms()
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT {sql}")
        return int(cursor.fetchone()[0])


def _take_write_lock(using: str) -> None:
    if not StoreState.objects.using(using).filter(pk=ONE).update(generation=F("generation")):
        StoreState.objects.using(using).bulk_create([StoreState(pk=ONE)], ignore_conflicts=True)
