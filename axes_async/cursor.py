"""The one writer: whoever holds the cursor may write rows, and everybody else waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from django.db import IntegrityError, router, transaction
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
    with transaction.atomic(using=using):
        row = DrainCursor.objects.using(using).filter(name=OUTBOX)
        if not row.update(position=F("position")):
            with suppress(IntegrityError), transaction.atomic(using=using):
                DrainCursor.objects.using(using).create(name=OUTBOX)
            row.update(position=F("position"))
        yield row.get()
