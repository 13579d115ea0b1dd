"""The one writer: whoever holds the cursor may write rows, and everybody else waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import router, transaction
from django.db.models import F

if TYPE_CHECKING:
    from axes_async.models import DrainCursor

OUTBOX = "outbox"


def database() -> str:
    """Return the alias of the database that our rows are written to."""
    from axes_async.models import DrainCursor

    return router.db_for_write(DrainCursor)


@contextmanager
def held_cursor() -> Iterator[DrainCursor]:
    """Hold the cursor until the end of the block, in one transaction with whatever is written in it.

    The first statement is an UPDATE: it takes the row's lock on every database, and on SQLite the one write lock
    before anything was read, so that no other writer can have come in between.
    """
    from axes_async.models import DrainCursor

    using = database()
    row = DrainCursor.objects.using(using).filter(name=OUTBOX)
    while True:
        with transaction.atomic(using=using):
            if row.update(position=F("position")):
                yield row.get()
                return
        DrainCursor.objects.using(using).get_or_create(name=OUTBOX)
