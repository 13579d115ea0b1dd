"""What has expired goes. The store needs no help: its counters end by themselves, to the millisecond."""

from __future__ import annotations

import logging

from celery import shared_task
from django.db.models import Q

from axes_async.clock import as_datetime
from axes_async.errors import StoreUnavailable
from axes_async.models import AccessAttempt, AttemptCounter, DrainCursor, database
from axes_async.stores.contract import OutboxStore, Position
from axes_async.stores.database.mode import database_now
from axes_async.stores.database.rows import reservations_of
from axes_async.stores.factory import get_store
from axes_async.tasks.drain import drain_to_end
from axes_async.tasks.projection.bulk import delete_portions
from axes_async.tasks.projection.resets import delete_void
from axes_async.tasks.projection.writer_lock import OUTBOX, writer_lock
from axes_async.tasks.reset import finish_pending
from axes_async.tasks.sync import needs_sync, sync_store

log = logging.getLogger(__name__)

PORTION = 5000
"""Rows per transaction: a drain waits for it."""


@shared_task(name="axes_async.expire")
def expire() -> dict[str, int]:
    """Delete attempts and counters that have expired; return how many of each there were.

    The outboxes are drained first: an event that waits there may say that a counter expires later. What a crash has
    left to do is done here too: of a reset of everything, and a sync.
    """
    using, store = database(), get_store()
    now = database_now(using)
    try:
        drain_to_end(store if isinstance(store, OutboxStore) else None)
    except StoreUnavailable as error:
        log.warning("What has expired goes by the rows alone: the store cannot be read (%s).", error)
    DrainCursor.objects.using(using).filter(name=OUTBOX).update(expired_at=as_datetime(now))
    try:
        finish_pending()
    except StoreUnavailable as error:
        log.warning("A reset of everything waits for the store (%s).", error)
    delete_void(using)
    attempts = AccessAttempt.objects.using(using).filter(expires_at__lte=as_datetime(now))
    gone = {
        "attempts": delete_portions(attempts, "expires_at", PORTION),
        "counters": _delete_counters(Q(expires_at__lte=as_datetime(now)), "expires_at", now, using),
    }
    gone["counters"] += _delete_counters(Q(failures=0), "digest", now, using)
    try:
        if needs_sync(store):
            sync_store(store)
    except StoreUnavailable as error:
        log.warning("The store cannot be synced (%s).", error)
    return gone


def _delete_counters(ended: Q, order: str, now: int, using: str) -> int:
    """Delete counters that count nothing any more, unless their rows say more than that; return how many."""
    gone, behind = 0, Q()
    while True:
        with writer_lock() as cursor:
            written = Position.parse(cursor.position).generation
            rows = AttemptCounter.objects.using(using).filter(ended, dirty=False, void_generation__lt=max(written, 0))
            found = list(rows.filter(behind).order_by(order, "digest").select_for_update()[:PORTION])
            free = [row.digest for row in found if not reservations_of(row, now)]
            gone += AttemptCounter.objects.using(using).filter(pk__in=free).delete()[0]
        if len(found) < PORTION:
            return gone
        last = found[-1]
        value = getattr(last, order)
        behind = Q(**{f"{order}__gt": value}) | Q(**{order: value}, digest__gt=last.digest)
