"""The one writer: whoever holds the cursor may write rows, and everybody else waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import connections, router, transaction
from django.db.models import F

if TYPE_CHECKING:
    from axes_async.models import DrainCursor

OUTBOX = "outbox"

ORDER = 0x61786573
"""The advisory lock of PostgreSQL under which those who wait for the cursor are let in as they came ("axes")."""


def database() -> str:
    """Return the alias of the database that our rows are written to."""
    from axes_async.models import DrainCursor

    return router.db_for_write(DrainCursor)


@contextmanager
def held_cursor() -> Iterator[DrainCursor]:
    """Hold the cursor until the end of the block, in one transaction with whatever is written in it.

    It is taken by an UPDATE, which takes the row's lock on every database, and on SQLite the one write lock
    before anything was read, so that no other writer can have come in between.
    """
    from axes_async.models import DrainCursor

    using = database()
    row = DrainCursor.objects.using(using).filter(name=OUTBOX)
    while True:
        begins_here = connections[using].get_autocommit()
        with transaction.atomic(using=using):
            _stand_in_line(using, see_the_latest=begins_here)
            if row.update(position=F("position")):
                yield row.get()
                return
        DrainCursor.objects.using(using).get_or_create(name=OUTBOX)


def _stand_in_line(using: str, *, see_the_latest: bool) -> None:
    """Wait until those have had their turn who came before.

    Of those that wait for a row of PostgreSQL, one that comes just then may be the first to have it: a login could wait
    for others without end, and decide before another process has told what it had begun to tell long before.

    At a higher isolation, whoever has waited could only fail: what it may see is of the time before. There is one
    writer at any time, so nothing is lost by ``READ COMMITTED``, which can be asked for where a transaction begins.
    """
    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as statement:
            if see_the_latest:
                statement.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            statement.execute("SELECT pg_advisory_xact_lock(%s)", [ORDER])
