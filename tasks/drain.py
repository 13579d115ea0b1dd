"""The drain: the outbox, written to the database in order and exactly once.

The position up to which events are written is stored in the same transaction as what they became, so a kill at any
point repeats nothing and loses nothing. The outbox is trimmed afterwards.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from celery import shared_task
from django.db import DatabaseError, OperationalError, transaction
from django.utils import timezone

from axes_async import outbox
from axes_async.events import AttemptEvent
from axes_async.store import get_store
from axes_async.stores.base import OutboxStore
from axes_async.tasks.cursor import database, held_cursor
from axes_async.tasks.fold import Fold

log = logging.getLogger(__name__)

BATCH = 1000
"""Events per transaction."""

UNWRITABLE = (DatabaseError, ValueError, TypeError, LookupError)
"""What an event may meet that no repetition mends: a value that a column, or our own reading of it, does not take."""

LONGEST = 20.0
"""Seconds after which a drain makes room for other tasks and has another one go on."""


@shared_task(name=outbox.DRAIN, ignore_result=True)
def drain() -> int:
    """Write what is in the outbox; return how many events that were."""
    store = get_store()
    if not isinstance(store, OutboxStore):
        return 0
    written, stop = 0, time.monotonic() + LONGEST
    while batch := drain_batch(store):
        written += batch
        if time.monotonic() > stop:
            outbox.publish(outbox.DRAIN, expires=outbox.DRAIN_EXPIRES)
            break
    return written


def drain_batch(store: OutboxStore) -> int:
    """Write the next batch; return how many events it had.

    Raises ``DatabaseError`` and ``StoreUnavailable``, with nothing written and nothing lost.
    """
    with held_cursor() as cursor:
        entries = store.read(cursor.position, BATCH)
        if entries:
            events = [entry for _, entry in entries if isinstance(entry, AttemptEvent)]
            for _, entry in entries:
                if not isinstance(entry, AttemptEvent):
                    store.set_aside(entry, "not an event")
            _write(events, store, database())
            cursor.position, cursor.moved_at = entries[-1][0], timezone.now()
            cursor.save(update_fields=["position", "moved_at"])
            # Inside a caller's transaction, which may yet be rolled back, that is when that one is committed.
            transaction.on_commit(partial(store.trim, cursor.position), using=database())
    if not entries:
        store.rest(cursor.position)
    return len(entries)


def _write(events: list[AttemptEvent], store: OutboxStore, using: str) -> None:
    """Write a batch; should an event of it not go, write each alone and set aside the ones that cannot be."""
    try:
        with transaction.atomic(using=using):
            Fold(store, using).apply(events)
    except OperationalError:
        raise  # The database is at fault, and not the event.
    except UNWRITABLE as error:
        if len(events) == 1:
            log.error("Event set aside, it cannot be written (%s): %s", error, events[0].body())
            store.set_aside(f"{events[0].body()} {events[0].outcome()}".encode(), f"{type(error).__name__}: {error}")
            return
        for event in events:
            _write([event], store, using)
