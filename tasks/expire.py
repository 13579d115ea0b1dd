"""Cooled-off attempts go. The store needs no help: its counters end by themselves, to the millisecond."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.db.models import F, Model, QuerySet

from axes_async.clock import as_datetime, now_ms
from axes_async.cursor import OUTBOX, database, held_cursor
from axes_async.models import AccessAttempt, AttemptCounter, AttemptPlace, DrainCursor

PORTION = 5000
"""Rows per transaction: a drain waits for it."""

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
    return {
        "attempts": _delete(AccessAttempt.objects.using(using).filter(expires_at__lte=now)),
        "counters": _delete(counters.filter(expires_at__lte=now))
        + _delete(counters.filter(lifted__gte=F("failures"), updated_at__lte=now - REMEMBERED)),
    }


def _delete(rows: QuerySet[Model]) -> int:
    """Delete in portions, each while the cursor is held: a drain at work would write them again."""
    gone = 0
    while True:
        with held_cursor():
            keys = list(rows.values_list("pk", flat=True)[:PORTION])
            gone += rows.filter(pk__in=keys).delete()[0] if keys else 0
        if len(keys) < PORTION:
            return gone
