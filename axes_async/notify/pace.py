"""How often something may be done: the database decides, so it holds for all processes."""

from __future__ import annotations

from datetime import timedelta

from axes_async.clock import as_datetime, now_ms
from axes_async.counters.rules import digest_of
from axes_async.models import Notice, database


def take(kind: str, subject: str, *, every: timedelta, times: int = 1) -> bool:
    """Return whether something may be done now, at most ``times`` in ``every``; if so, note that it is."""
    now, rows = as_datetime(now_ms()), Notice.objects.using(database())
    for place in range(times):
        key = key_of(kind, subject, place)
        if rows.filter(key=key, until__lte=now).update(until=now + every):
            return True
        if rows.get_or_create(key=key, defaults={"until": now + every})[1]:
            return True
    return False


def is_taken(kind: str, subject: str) -> bool:
    """Return whether it may not be done now."""
    now = as_datetime(now_ms())
    return Notice.objects.using(database()).filter(key=key_of(kind, subject), until__gt=now).exists()


def prolong(kind: str, subject: str, *, every: timedelta) -> None:
    """Note that what was taken was done, and is not to be done again for ``every``."""
    until = as_datetime(now_ms()) + every
    Notice.objects.using(database()).filter(key=key_of(kind, subject)).update(until=until)


def give_back(kind: str, subject: str) -> None:
    """Note that it was not done after all."""
    Notice.objects.using(database()).filter(key=key_of(kind, subject)).delete()


def key_of(kind: str, subject: str, place: int = 0) -> str:
    """Return what names a subject among those of its kind."""
    return digest_of([(kind, subject), ("place", str(place))])
