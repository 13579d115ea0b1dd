"""What has expired goes. The store needs no help: its counters end by themselves, to the millisecond."""

from __future__ import annotations

import logging

from celery import shared_task

from axes_async.clock import as_datetime
from axes_async.delivery import publisher
from axes_async.errors import StoreUnavailable
from axes_async.models import AccessAttempt, AttemptCounter, DrainCursor, database
from axes_async.stores.contract import Position
from axes_async.stores.database.mode import database_now
from axes_async.stores.database.rows import reservations_of
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.factory import get_store
from axes_async.tasks.drain import drain_to_end
from axes_async.tasks.notify import watch_soon
from axes_async.tasks.projection.bulk import delete_portions
from axes_async.tasks.projection.resets import delete_void
from axes_async.tasks.projection.rollups import drop_old_rollups
from axes_async.tasks.projection.writer_lock import OUTBOX
from axes_async.tasks.reset import mend

log = logging.getLogger(__name__)

PORTION = 5000
"""Rows per transaction: a drain waits for it."""


@shared_task(name=publisher.EXPIRE)
def expire() -> dict[str, int]:
    """Delete attempts and counters that have expired; return how many of each there were.

    The outboxes are drained first: an event that waits there may say that a counter expires later. What a crash has
    left to do is done here too: of a reset of everything, and a sync.
    """
    using, store = database(), get_store()
    now = database_now(using)
    try:
        drain_to_end(store)
    except StoreUnavailable as error:
        log.warning("What has expired goes by the rows alone: the store cannot be read (%s).", error)
    outbox = DrainCursor.objects.using(using).filter(name=OUTBOX)
    outbox.update(expired_at=as_datetime(now))
    delete_void(using)
    drop_old_rollups(as_datetime(now), using)

    def choose(ended: list[AttemptCounter]) -> list[AttemptCounter]:
        return [row for row in ended if not reservations_of(row, now)]

    attempts = AccessAttempt.objects.using(using).filter(expires_at__lte=as_datetime(now))
    gone = {"attempts": delete_portions(attempts, "expires_at", PORTION), "counters": 0}
    # Events that a reset has voided may yet come, and count nothing as long as the row says so.
    written = Position.parse(outbox.values_list("position", flat=True).get()).generation
    counters = AttemptCounter.objects.using(using).filter(void_generation__lt=max(written, 0))
    if not isinstance(store, DatabaseStore):
        counters = counters.filter(dirty=False)  # The store has yet to be told of the others.
    for ended, order in (({"expires_at__lte": as_datetime(now)}, "expires_at"), ({"failures": 0}, "digest")):
        gone["counters"] += delete_portions(counters.filter(**ended), order, PORTION, choose=choose)
    try:
        mend(store)
    except StoreUnavailable as error:
        log.warning("The store cannot be synced (%s).", error)
    watch_soon()
    return gone
