"""The drain: the outbox, written to the database in order and exactly once.

The position up to which events are written is stored in the same transaction as what they became, so a kill at any
point repeats nothing and loses nothing. The outbox is trimmed afterwards.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

from celery import shared_task
from django.db import DatabaseError, InterfaceError, OperationalError, transaction
from django.utils import timezone

from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.counters.events import AttemptEvent, Kind
from axes_async.cursor import database, held_cursor
from axes_async.delivery import publisher as outbox
from axes_async.delivery.circuit_breaker import Breaker
from axes_async.errors import StoreUnavailable
from axes_async.ledger import state_of
from axes_async.models import AccessFailureLog, AccessLog, AttemptCounter, DrainCursor
from axes_async.stores.contract import Outbox, OutboxStore
from axes_async.stores.factory import get_store
from axes_async.tasks.projection.position import find_place
from axes_async.tasks.projection.projector import Fold
from axes_async.tasks.rebuild import rebuild_if_cold

log = logging.getLogger(__name__)

BATCH = 1000
"""Events per transaction."""

BATCH_WHILE_COLD = 50
"""The same for a store that is cold: logins read the rows then, and wait for the end of it."""

LONGEST = 20.0
"""Seconds after which a drain makes room for other tasks and has another one go on."""

LINGER = 500
"""Milliseconds for which logins are spared the nudge; the worker looks again at half of that."""

TRIES = 4
"""How often a batch is tried that the database gave up for another transaction's sake (a deadlock, say)."""

UNWRITABLE = (DatabaseError, ValueError, TypeError, LookupError)
"""What an event may meet that no repetition mends: a value that a column, or our own reading of it, does not take."""

MYSQL_DATA_ERRORS = {(1264,), (1366,), (1406,)}
"""What MySQL's driver calls an operational error, and is a value that a column does not take."""

_database = Breaker(rest=1.0, longest=15.0)


@shared_task(name=outbox.DRAIN, ignore_result=True, bind=True)
def drain(self: Any) -> int:
    """Write what is in the outbox, and rebuild a cold store; return how many events were written.

    A worker that has written something looks again a moment later, and spares the logins until then the nudge.

    While the store or the database is away nothing is written and nothing is lost; after a fault of the database it is
    left alone for one second, then two, up to fifteen.
    """
    store = get_store()
    if not isinstance(store, OutboxStore) or not _database.allows():
        return 0
    in_worker = not self.request.called_directly and not self.request.is_eager
    written, stop = 0, time.monotonic() + LONGEST
    try:
        store.outbox()  # First, so that no store that is away is waited for while the cursor is held.
        while True:
            with paused_collection():
                batch = drain_batch(store, linger=LINGER if in_worker and written else 0)
            written += batch
            if not batch:
                if in_worker and written:
                    outbox.publish(outbox.DRAIN, countdown=LINGER / 2000, expires=outbox.DRAIN_EXPIRES)
                break
            if time.monotonic() > stop:
                outbox.publish(outbox.DRAIN, expires=outbox.DRAIN_EXPIRES)
                break
        rebuild_if_cold(store)  # A batch may have found that the store has to hear of what was counted in rows.
    except (OperationalError, InterfaceError) as error:
        _database.failed()
        log.warning("The outbox waits, the database cannot be used (%s).", error)
    except StoreUnavailable as error:
        log.warning("The outbox waits, the store cannot be read (%s).", error)
    else:
        _database.succeeded()
    return written


@contextmanager
def paused_collection() -> Iterator[None]:
    """Keep the garbage collector from searching thousands of new rows that a batch still needs: a tenth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def drain_batch(store: OutboxStore, *, linger: int = 0) -> int:
    """Write the next batch; return how many events it had. See ``OutboxStore.rest`` for ``linger``.

    Raises ``DatabaseError`` and ``StoreUnavailable``, with nothing written and nothing lost.
    """
    for left in reversed(range(TRIES)):
        try:
            return _drain_batch(store, linger)
        except OperationalError:
            # A deadlock or a failed serialization is over at once; in a caller's transaction nothing can be repeated.
            if not left or transaction.get_connection(database()).in_atomic_block:
                raise
            time.sleep(0.05)
    raise AssertionError("unreachable")


def _drain_batch(store: OutboxStore, linger: int) -> int:
    with held_cursor() as cursor:
        if cursor.unmerged:
            cursor.unmerged = not _cooled(store)
        source, entries = _next(cursor, store)
        events = [entry for _, entry in entries if isinstance(entry, AttemptEvent)]
        for _, entry in entries:
            if not isinstance(entry, AttemptEvent):
                store.set_aside(entry, "not an event")
        if events:
            _write(events, store, database())
        if entries:
            cursor.position, cursor.moved_at = entries[-1][0], timezone.now()
        cursor.drained_at = timezone.now()
        cursor.save(update_fields=["position", "outbox", "moved_at", "drained_at", "unmerged"])
        if entries or source.events:
            # Inside a caller's transaction, which may yet be rolled back, that is when that one is committed.
            transaction.on_commit(partial(store.trim, source.name, cursor.position), using=database())
    if not entries:
        store.rest(cursor.position, linger=linger)
    return len(entries)


def _cooled(store: OutboxStore) -> bool:
    """Have the store take its counters from the rows again; return whether it could be told.

    One that is full cannot be, until what was drained has made room.
    """
    try:
        store.cool()
    except StoreUnavailable as error:
        log.warning("The store is yet to be told of what was counted without it (%s).", error)
        return False
    return True


def _next(cursor: DrainCursor, store: OutboxStore) -> tuple[Outbox, list[tuple[str, AttemptEvent | bytes]]]:
    """Return the outbox and the next events of it, and not of one that has taken its place in between."""
    while True:
        source = store.outbox()
        find_place(cursor, source, store)
        entries = store.read(cursor.position, BATCH_WHILE_COLD if store.is_cold() else BATCH)
        if store.outbox().name == source.name:
            return source, entries


def _write(events: list[AttemptEvent], store: OutboxStore, using: str) -> None:
    """Write a batch; should an event of it not go, write each alone and set aside the ones that cannot be."""
    try:
        with transaction.atomic(using=using):
            Fold(store, using).apply(events)
    except UNWRITABLE as error:
        if isinstance(error, OperationalError | InterfaceError) and error.args[:1] not in MYSQL_DATA_ERRORS:
            raise  # The database is at fault, and not the event.
        if len(events) == 1:
            if _was_written(events[0], using):
                _count_once(events[0], store, using)
                return
            log.error("Event set aside, it cannot be written (%s): %s", error, events[0].line())
            store.set_aside(events[0].wire(), f"{type(error).__name__}: {error}")
            return
        for event in events:
            _write([event], store, using)


def _was_written(event: AttemptEvent, using: str) -> bool:
    """Return whether there is a row of this very event already."""
    event_id = UUID(event.id)
    return any(model.objects.using(using).filter(event_id=event_id).exists() for model in (AccessFailureLog, AccessLog))


def _count_once(event: AttemptEvent, store: OutboxStore, using: str) -> None:
    """Take back one of two counts: a store that fell silent has done in the end what the rows were asked to do."""
    if event.kind is not Kind.FAILED:
        return
    rows = []
    for state in event.counters:
        row = AttemptCounter.objects.using(using).filter(digest=state.digest, epoch__in=(0, state.epoch)).first()
        if row is not None and row.failures < state.failures:  # Else it is only told twice.
            row.epoch, row.failures, row.lifted = state.epoch, state.failures, row.lifted + 1
            row.save(using=using, update_fields=["epoch", "failures", "lifted"])
            rows.append(state_of(row))
    store.adjust(rows, now=now_ms(), lease=get_settings().lease_ms)
