"""Retention: rows of the logs that are older than the settings keep them go, a portion at a time.

Attempts are not looked at here: they are no log but what counts now, and go by their cool-off or by a reset.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TypeVar

from celery import shared_task
from django.db.models import Count, Model, Q, QuerySet

from axes_async.clock import as_datetime, now_ms
from axes_async.conf import get_settings
from axes_async.cursor import database
from axes_async.models import AccessFailureLog, AccessLog, AccessReset
from axes_async.tasks.projection.rows import delete_portions

log = logging.getLogger(__name__)

PORTION = 1000
"""Rows per transaction: about 20 ms on PostgreSQL, for which a drain waits."""

NAMES = 500
"""Usernames that are looked at in one go."""

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
    for username in _names_over(rows, limit):
        theirs = rows.filter(username=username).order_by("-attempt_time", "-pk")
        first_over = theirs.values_list("attempt_time", "pk")[limit : limit + 1].first()
        if first_over is not None:
            gone += delete_portions(theirs.filter(_up_to(*first_over)), "attempt_time", PORTION)
    return gone


def _names_over(rows: QuerySet[AccessFailureLog], limit: int) -> Iterator[str]:
    """Return the usernames that have more than ``limit`` rows, in their order."""
    last = None
    while True:
        behind = rows.exclude(username=None) if last is None else rows.filter(username__gt=last)
        counted = behind.order_by("username").values_list("username").annotate(number=Count("pk"))
        names = [name for name, _ in counted.filter(number__gt=limit)[:NAMES]]
        yield from names
        if len(names) < NAMES:
            return
        last = names[-1]


def _older(model: type[Row], field: str, age: timedelta) -> QuerySet[Row]:
    limit = as_datetime(now_ms()) - age
    return model._default_manager.using(database()).filter(**{f"{field}__lte": limit})


def _up_to(time: datetime, pk: int) -> Q:
    return Q(attempt_time__lt=time) | Q(attempt_time=time, pk__lte=pk)
