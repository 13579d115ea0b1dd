"""Retention: rows of the logs that are older than the settings keep them go, a portion at a time.

Attempts are not looked at here: they are no log but what counts now, and go by their cool-off or by a reset.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from celery import shared_task
from django.db.models import Count, Window
from django.db.models.functions import RowNumber

from axes_async.clock import as_datetime, now_ms
from axes_async.conf import get_settings
from axes_async.models import AccessFailureLog, AccessLog, AccessReset, Notice, database
from axes_async.tasks.projection.bulk import delete_portions, portions
from axes_async.tasks.projection.writer_lock import writer_lock

log = logging.getLogger(__name__)

PORTION = 1000
"""Rows per transaction: about 20 ms on PostgreSQL, for which a drain waits."""

FOUND = 500_000
"""Rows over the limit of their names that one query looks for: so many keys are in memory at a time, 50 MB."""

NAMES = 1000
"""Names over the limit whose rows are looked for by an index. If there are more, the log is read from end to end."""


@shared_task(name="axes_async.purge")
def purge() -> dict[str, int]:
    """Delete what the settings no longer keep; return how many rows of each kind there were."""
    settings = get_settings()
    gone = {
        "access_logs": delete_older(AccessLog, settings.access_log_age),
        "failure_logs": delete_older(AccessFailureLog, settings.access_failure_log_age),
        "resets": delete_older(AccessReset, settings.access_reset_age),
        "failure_logs_over_limit": delete_over_limit(settings.access_failure_log_per_user_limit),
    }
    if settings.has_notices:
        over = Notice.objects.using(database()).filter(until__lte=as_datetime(now_ms()), waiting="")
        delete_portions(over, "until", PORTION)
    if any(gone.values()):
        log.info("Purged %s.", ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in gone.items()))
    return gone


def delete_older(model: type[AccessLog | AccessFailureLog | AccessReset], age: timedelta | None) -> int:
    """Delete rows that are ``age`` or older, if it is not None; return how many."""
    if age is None:
        return 0
    field = "reset_time" if model is AccessReset else "attempt_time"
    rows = model._default_manager.using(database()).filter(**{f"{field}__lte": as_datetime(now_ms()) - age})
    return delete_portions(rows, field, PORTION)


def delete_over_limit(limit: int | None) -> int:
    """Delete all but the latest ``limit`` ``AccessFailureLog`` rows of each username; return how many went."""
    if limit is None:
        return 0
    gone, rows = 0, AccessFailureLog.objects.using(database())
    counted = rows.exclude(username=None).order_by().values("username").annotate(number=Count("pk"))
    over = counted.filter(number__gt=limit).values_list("username", flat=True)
    names = list(over[: NAMES + 1])
    place = Window(RowNumber(), partition_by="username", order_by=("-attempt_time", "-pk"))
    theirs = rows.filter(username__in=names if len(names) <= NAMES else over).annotate(place=place)
    going = theirs.filter(place__gt=limit).order_by().values_list("pk", flat=True)
    while names:
        # In the order of the keys, neighbours in the table go together: each page is written once.
        keys = sorted(going[:FOUND].iterator(chunk_size=PORTION))
        for some in portions(keys, PORTION):
            with writer_lock():
                gone += rows.filter(pk__in=some).order_by().delete()[0]
        if len(keys) < FOUND:
            break
    return gone
