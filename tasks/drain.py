"""The drain: outboxes, written to the database in order and exactly once.

The position up to which events are written is stored in the same transaction as what they became, so a kill at any
point repeats nothing and loses nothing. The outbox of the store is trimmed afterwards. The outbox table, of steps that
the database decided, is drained with it, whatever the store is.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from celery import shared_task
from django.db import InterfaceError, InternalError, OperationalError, ProgrammingError, transaction
from django.utils import timezone

from axes_async.counters.events import AttemptEvent
from axes_async.delivery import publisher
from axes_async.delivery.circuit_breaker import CircuitBreaker
from axes_async.errors import StoreUnavailable
from axes_async.models import DrainCursor, OutboxEvent, database
from axes_async.stores.contract import OutboxStore, Position, Store
from axes_async.stores.factory import get_store
from axes_async.tasks.projection import totals
from axes_async.tasks.projection.counters import Entry
from axes_async.tasks.projection.halving import write_halving
from axes_async.tasks.projection.projector import Projector
from axes_async.tasks.projection.writer_lock import OUTBOX, writer_lock

log = logging.getLogger(__name__)

BATCH = 2000
"""Events of each outbox per transaction."""

LONGEST = 20.0
"""Seconds after which a drain makes room for other tasks and has another one go on."""

NUDGE_PAUSE = 500
"""Milliseconds in which logins need not nudge; the worker looks again at half of that."""

TRIES = 4
"""How often a batch is tried that the database gave up for another transaction's sake (a deadlock, say)."""

LOCKED = {"55P03", 1205}
"""What PostgreSQL and MySQL say of a lock that could not be had in time: whoever holds it is not done in a moment."""

SHOWN = 10_000
"""Bytes of an entry that cannot be written which the log shows: more than any event of ours has."""

_database = CircuitBreaker(1.0, longest=15.0, name="database")


@shared_task(name=publisher.DRAIN, ignore_result=True, bind=True)
def drain(self: Any) -> int:
    """Write what is in the outboxes, then do what a crash has left to do; return how many events were written.

    A worker that has written something looks again a moment later, and until then logins need not nudge.

    While the store or the database is away nothing is lost. After a failure of the database no drain of this process
    tries again for one second, then two, up to fifteen.
    """
    if not _database.allows():
        return 0
    try:
        written = _drain(in_worker=not self.request.called_directly and not self.request.is_eager)
    except (OperationalError, InterfaceError, InternalError, ProgrammingError) as error:
        _database.failed()
        log.warning("Events wait in the outbox: the database cannot be used (%s).", error)
        return 0
    except StoreUnavailable as error:
        log.warning("Events wait in the outbox: the store cannot be read (%s).", error)
        return 0
    _database.succeeded()
    return written


def _drain(*, in_worker: bool) -> int:
    from axes_async.tasks.reset import mend

    store, stop = get_store(), time.monotonic() + LONGEST
    outbox = readable(store)
    written = 0
    while True:
        with paused_collection():
            batch = drain_batch(outbox)
        written += batch
        if batch and time.monotonic() > stop:
            publisher.publish(publisher.DRAIN, expires=publisher.DRAIN_EXPIRES)
            return written
        if not batch and (outbox is None or _rearm(outbox, looks_again=in_worker and written > 0)):
            break
    if outbox is store or not isinstance(store, OutboxStore):
        mend(store)
    return written


def readable(store: Store) -> OutboxStore | None:
    """Return ``store`` if it has an outbox, and answers. Asked before the writer lock is taken: others would wait."""
    if not isinstance(store, OutboxStore):
        return None
    try:
        store.key()
    except StoreUnavailable as error:
        log.warning("Events wait in the outbox: the store cannot be read (%s).", error)
        return None
    return store


def _rearm(outbox: OutboxStore, *, looks_again: bool) -> bool:
    """Let the next event ask for a drain; return whether there is none yet."""
    cursor = DrainCursor.objects.using(database()).get(name=OUTBOX)
    is_last = outbox.rearm(Position.parse(cursor.position), pause=NUDGE_PAUSE if looks_again else 0)
    if is_last and looks_again:
        publisher.publish(publisher.DRAIN, countdown=NUDGE_PAUSE / 2000, expires=publisher.DRAIN_EXPIRES)
    return is_last


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


def drain_to_end(store: Store | None) -> None:
    """Write all that is in the outbox table now and, if ``store`` has an outbox, in that. Raises as ``drain_batch``."""
    outbox = store if isinstance(store, OutboxStore) else None
    while drain_batch(outbox) >= BATCH:
        pass


def drain_batch(store: OutboxStore | None) -> int:
    """Write the next batch of the outbox table and, with a store, of the store's outbox; return how many events it had.

    Raises ``DatabaseError`` and ``StoreUnavailable``, with nothing written and nothing lost.
    """
    for left in reversed(range(TRIES)):
        try:
            with writer_lock() as cursor:
                return write_next(cursor, store)
        except OperationalError as error:
            # A deadlock or a failed serialization is over at once; in a caller's transaction nothing can be repeated.
            is_locked = LOCKED & {getattr(error.__cause__, "sqlstate", None), error.args[0] if error.args else None}
            if not left or is_locked or transaction.get_connection(database()).in_atomic_block:
                raise
            time.sleep(0.05)
    raise AssertionError("unreachable")


def write_next(cursor: DrainCursor, store: OutboxStore | None) -> int:
    """Do as ``drain_batch``, while the caller holds the writer lock; fewer than ``BATCH`` events were the last."""
    using = database()
    found = [] if store is None else store.read(Position.parse(cursor.position), BATCH)
    rows = list(OutboxEvent.objects.using(using).order_by("pk")[:BATCH])
    entries = []
    for position, event in found:
        if isinstance(event, AttemptEvent):
            entries.append(Entry(event, position.generation))
        else:
            _set_aside(store, event, "not an event")
    for row in rows:
        try:
            entries.append(Entry(AttemptEvent.parse(row.wire), None))
        except ValueError as error:
            _set_aside(store, row.wire.encode(errors="replace"), str(error))
    totals.add(cursor, write(entries, store, using))
    if rows:
        OutboxEvent.objects.using(using).filter(pk__in=[row.pk for row in rows]).delete()
    if store is not None and found:
        cursor.position = str(found[-1][0])
        # In a caller's transaction, which may yet be rolled back, that is when that one is committed.
        transaction.on_commit(partial(_trim, store, found[-1][0]), using=using)
    cursor.drained_at = timezone.now()
    cursor.save(using=using, update_fields=["position", "drained_at", "totals"])
    return len(found) + len(rows)


def _trim(store: OutboxStore, position: Position) -> None:
    try:
        store.trim(position)
    except StoreUnavailable as error:
        log.warning("Events that are written stay in the outbox until the next drain (%s).", error)


def write(entries: list[Entry], store: OutboxStore | None, using: str) -> Counter[str]:
    """Write ``entries``; return what they add to the totals. Those that cannot be written are set aside."""

    def write_some(some: Sequence[Entry]) -> Counter[str]:
        written = Projector(using).write(some)
        from_table = sum(entry.generation is None for entry in written)
        drained = Counter({"drained store": len(written) - from_table, "drained table": from_table})
        return totals.totals_of(entry.event for entry in written) + drained

    total, refused = write_halving(entries, write_some, using=using)
    for entry, error in refused:
        # Half a character cannot be encoded; its escape is what JSON has for it.
        _set_aside(store, entry.event.wire().encode(errors="backslashreplace"), error)
    return total


def _set_aside(store: OutboxStore | None, wire: bytes, error: str) -> None:
    """Keep an entry that cannot be written among the dead letters, or for want of a store that has some, in the log."""
    error = error[:SHOWN]
    log.error("An event cannot be written (%s): %s", ascii(error), ascii(wire[:SHOWN].decode(errors="replace")))
    if store is not None:
        try:
            store.set_aside(wire, error)
        except StoreUnavailable as full:
            log.error("It is in this log alone, as the store does not take it (%s).", full)
