"""The writer lock: whoever holds it may write rows, and everybody else waits.

The steps of the database store do not need it: they lock the rows of their counters, and write nothing else that a
drain changes. Whoever needs several locks takes them in this order: writer lock, ``StoreState``, counters by digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections, transaction
from django.db.models import F

from axes_async.models import DrainCursor, database

OUTBOX = "outbox"
"""The name of the cursor whose row is the writer lock."""

QUEUE = 0x61786573
"""PostgreSQL's advisory lock in which writers queue ("axes"). A newcomer may overtake those that wait for a row."""


@contextmanager
def writer_lock() -> Iterator[DrainCursor]:
    """Hold the writer lock, in one transaction with whatever is written in the block; yield the cursor of the outbox.

    The lock is an UPDATE, which locks the row on every database. On SQLite it takes the one write lock before anything
    was read.
    """
    using = database()
    row = DrainCursor.objects.using(using).filter(name=OUTBOX)
    while True:
        begins_here = connections[using].get_autocommit()
        with transaction.atomic(using=using):
            _queue(using, begins_here=begins_here)
            if row.update(position=F("position")):
                yield row.get()
                return
        DrainCursor.objects.using(using).get_or_create(name=OUTBOX)


def _queue(using: str, *, begins_here: bool) -> None:
    """Wait until those that came before have had their turn.

    At a higher isolation than READ COMMITTED, whoever has waited could only fail, because it sees what was there
    before. One writer at a time loses nothing by the lower one.
    """
    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            if begins_here:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [QUEUE])
