"""Cooled-off attempts go. The store needs no help: its counters end by themselves, to the millisecond."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.db.models import F

from axes_async.clock import as_datetime, now_ms
from axes_async.cursor import OUTBOX, database
from axes_async.models import AccessAttempt, AttemptCounter, AttemptPlace, DrainCursor
from axes_async.tasks.rows import delete_portions

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
    attempts = AccessAttempt.objects.using(using).filter(expires_at__lte=now)
    ended = counters.filter(expires_at__lte=now)
    taken_back = counters.filter(lifted__gte=F("failures"), updated_at__lte=now - REMEMBERED)
    return {
        "attempts": delete_portions(attempts, "expires_at", PORTION),
        "counters": delete_portions(ended, "expires_at", PORTION) + delete_portions(taken_back, "digest", PORTION),
    }
