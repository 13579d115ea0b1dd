"""What the dashboard shows, from the rollups: it costs the same whatever the logs hold."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from axes_async.models import AttemptCounter, database
from axes_async.models.rollups import AttemptRollup, TopValues
from axes_async.tasks.projection.rollups import KINDS
from axes_async.tasks.projection.sketches import distinct, merged

MOST_LOCKED = 1000
"""Locked counters of one kind that are counted; of more it is said that there are more."""

TOP = 10

WEEK = timedelta(days=7)


class Span(NamedTuple):
    """A time that a chart shows, and of what length its bars are."""

    length: timedelta
    step: timedelta


SPANS = {
    "1h": Span(timedelta(hours=1), timedelta(minutes=1)),
    "24h": Span(timedelta(hours=24), timedelta(minutes=15)),
    "7d": Span(WEEK, timedelta(hours=2)),
}


@dataclass(slots=True)
class Bucket:
    """The attempts of one bar."""

    start: datetime
    failed: int = 0
    turned_away: int = 0
    logged_in: int = 0
    lockouts: Counter[str] = field(default_factory=Counter)
    """How many counters were locked, by the parameters of their rule."""


def history(span: Span, now: datetime) -> list[Bucket]:
    """Return the bars up to ``now``, the oldest first; those without an attempt, too."""
    step = span.step.total_seconds()
    last = int(now.timestamp() // step)
    numbers = range(last - int(span.length / span.step) + 1, last + 1)
    buckets = {number: Bucket(datetime.fromtimestamp(number * step, tz=now.tzinfo)) for number in numbers}
    rows = AttemptRollup.objects.using(database()).filter(minute__gte=buckets[numbers[0]].start)
    for minute, *counts, lockouts in rows.values_list("minute", "failed", "turned_away", "logged_in", "lockouts"):
        bucket = buckets.get(int(minute.timestamp() // step))
        if bucket is not None:
            bucket.failed += counts[0]
            bucket.turned_away += counts[1]
            bucket.logged_in += counts[2]
            if lockouts != "{}":
                bucket.lockouts.update(json.loads(lockouts))
    return list(buckets.values())


def top_values(span: Span, now: datetime) -> dict[str, list[tuple[str, int]]]:
    """Return what failed or was turned away most, by its kind, and how often at least."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    hours = TopValues.objects.using(database()).filter(hour__gt=now - max(span.length, timedelta(hours=2)))
    for kind, counts in hours.values_list("kind", "counts"):
        found[kind].update(json.loads(counts))
    return {kind: counts.most_common(TOP) for kind, counts in found.items()}


@dataclass(frozen=True, slots=True)
class Now:
    """What goes on at this moment."""

    per_minute: float
    """Failed and turned away, of the last five minutes."""
    week_ago: float | None
    """The same of the whole hour a week ago; ``None`` if nothing was rolled up then."""
    names: int
    """How many distinct names were refused in the last hour, about."""
    addresses: int
    after_failures: int
    """Logins of the last hour whose name had failures that counted."""


def now_figures(now: datetime) -> Now:
    """Return what goes on at ``now``."""
    rows = AttemptRollup.objects.using(database())
    hour = list(rows.filter(minute__gt=now - timedelta(hours=1), minute__lte=now))
    minute = now.replace(second=0, microsecond=0)
    latest = [row for row in hour if minute - timedelta(minutes=5) <= row.minute < minute]
    then = (now - WEEK).replace(minute=0, second=0, microsecond=0)
    before = list(rows.filter(minute__gte=then, minute__lt=then + timedelta(hours=1)))
    return Now(
        per_minute=_refused(latest) / 5,
        week_ago=_refused(before) / 60 if before or rows.filter(minute__lt=then).exists() else None,
        names=distinct(merged(bytes(row.names) for row in hour)),
        addresses=distinct(merged(bytes(row.addresses) for row in hour)),
        after_failures=sum(row.after_failures for row in hour),
    )


def locked_now(now: datetime) -> dict[str, int]:
    """Return how many names and how many addresses are locked, as far as the rows know; at most ``MOST_LOCKED + 1``."""
    locked = AttemptCounter.objects.using(database()).locked(now).filter(near_limit=True)  # An index has these.
    kinds = {"names": locked.exclude(username_key=""), "addresses": locked.exclude(ip_address_key="")}
    return {name: len(found.order_by()[: MOST_LOCKED + 1].values_list("pk")) for name, found in kinds.items()}


def _refused(rows: list[AttemptRollup]) -> int:
    return sum(row.failed + row.turned_away for row in rows)
