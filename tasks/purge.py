"""Retention: rows of the logs that are older than the settings keep them go, a portion at a time.

Attempts are not looked at here: they are no log but what counts now, and go by their cool-off or by a reset.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TypeVar

from celery import shared_task
from django.db.models import Count, Model, QuerySet, Window
from django.db.models.functions import RowNumber

from axes_async.clock import as_datetime, now_ms
from axes_async.conf import get_settings
from axes_async.models import AccessFailureLog, AccessLog, AccessReset, database
from axes_async.tasks.projection.bulk import delete_portions, portions
from axes_async.tasks.projection.writer_lock import writer_lock

log = logging.getLogger(__name__)

PORTION = 1000
"""Rows per transaction: about 20 ms on PostgreSQL, for which a drain waits."""

NAMES = 500
"""Usernames whose rows are looked for in one go. No index leads to them: every new row would have to write it."""

Row = TypeVar("Row", bound=Model)


@shared_task(name="axes_async.purge")
def purge() -> dict[str, int]:
    """Delete what the settings no longer keep; return how many rows of each kind there were."""
    settings = get_settings()
    gone = {"access_logs": 0, "failure_logs": 0, "resets": 0, "failure_logs_over_limit": 0}
    if settings.access_log_age is not None:
        gone["access_logs"] = delete_logs(settings.access_log_age)
    if settings.access_failure_log_age is not None:
        gone["failure_logs"] = delete_failure_logs(settings.access_failure_log_age)
    if settings.access_reset_age is not None:
        gone["resets"] = delete_portions(
            _older(AccessReset, "reset_time", settings.access_reset_age), "reset_time", PORTION
        )
    if settings.access_failure_log_per_user_limit is not None:
        gone["failure_logs_over_limit"] = delete_over_limit(settings.access_failure_log_per_user_limit)
    if any(gone.values()):
        log.info("Purged %s.", ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in gone.items()))
    return gone


def delete_logs(age: timedelta) -> int:
    """Delete ``AccessLog`` rows whose login is ``age`` or longer ago; return how many."""
    return delete_portions(_older(AccessLog, "attempt_time", age), "attempt_time", PORTION)


def delete_failure_logs(age: timedelta) -> int:
    """Delete ``AccessFailureLog`` rows that are ``age`` or older; return how many."""
    return delete_portions(_older(AccessFailureLog, "attempt_time", age), "attempt_time", PORTION)


def delete_over_limit(limit: int) -> int:
    """Delete all but the latest ``limit`` ``AccessFailureLog`` rows of each username; return how many went."""
    gone = 0
    rows = AccessFailureLog.objects.using(database())
    counted = rows.exclude(username=None).order_by().values_list("username").annotate(number=Count("pk"))
    names = counted.filter(number__gt=limit).values_list("username", flat=True)
    for some in portions(names.iterator(chunk_size=NAMES), NAMES):
        place = Window(RowNumber(), partition_by="username", order_by=("-attempt_time", "-pk"))
        over = rows.filter(username__in=some).annotate(place=place).filter(place__gt=limit).order_by()
        for keys in portions(over.values_list("pk", flat=True).iterator(chunk_size=PORTION), PORTION):
            with writer_lock():
                gone += rows.filter(pk__in=keys).order_by().delete()[0]
    return gone


def _older(model: type[Row], field: str, age: timedelta) -> QuerySet[Row]:
    limit = as_datetime(now_ms()) - age
    return model._default_manager.using(database()).filter(**{f"{field}__lte": limit})
