"""Cooled-off attempts go. The store needs no help: its counters end by themselves, to the millisecond."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.db.models import F, QuerySet

from axes_async.clock import as_datetime, now_ms
from axes_async.cursor import OUTBOX, database, held_cursor
from axes_async.models import AccessAttempt, AttemptCounter, AttemptPlace, DrainCursor
from axes_async.tasks.projection.resets import portions
from axes_async.tasks.projection.rows import delete_portions

PORTION = 5000
"""Rows per transaction: a drain waits for it."""

AT_ONCE = 100_000
"""Counters that were taken back and are forgotten in one go; more of them are the next expiry's."""

REMEMBERED = timedelta(days=1)
"""How long a counter that was taken back whole is remembered, against events that were still on their way."""


@shared_task(name="axes_async.expire")
def expire() -> dict[str, int]:
    """Delete attempts and counters whose cool-off is over; return how many of each there were."""
    now = as_datetime(now_ms())
    using = database()
    counters = AttemptCounter.objects.using(using)
    AttemptPlace.objects.using(using).filter(ends_at__lte=now).delete()
    DrainCursor.objects.using(using).filter(name=OUTBOX).update(expired_at=now)
    attempts = AccessAttempt.objects.using(using).filter(expires_at__lte=now)
    ended = counters.filter(expires_at__lte=now)
    taken_back = counters.filter(lifted__gte=F("failures"), updated_at__lte=now - REMEMBERED)
    return {
        "attempts": delete_portions(attempts, "expires_at", PORTION),
        "counters": delete_portions(ended, "expires_at", PORTION) + _delete_found(taken_back),
    }


def _delete_found(rows: QuerySet[AttemptCounter]) -> int:
    """Delete rows that no index leads to: the whole table is looked through once, and nobody waits for that."""
    gone = 0
    for keys in portions(rows.values_list("pk", flat=True)[:AT_ONCE], PORTION):
        with held_cursor():
            gone += rows.filter(pk__in=keys).delete()[0]
    return gone
