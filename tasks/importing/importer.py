"""Imports what other packages have counted and logged into our rows: in portions, each row exactly once.

The position in a table is kept in the same transaction as what its rows became. So a run that is killed repeats nothing
and loses nothing, and a second one finds nothing new.
"""

from __future__ import annotations

from collections import Counter as Sums
from collections.abc import Iterator, Sequence
from math import inf
from uuid import UUID

from django.db import transaction

from axes_async.clock import as_datetime, now_ms
from axes_async.conf import get_settings
from axes_async.counters.events import Kind
from axes_async.models import AccessFailureLog, AccessLog, DrainCursor, database
from axes_async.tasks.importing.counts import Counts, columns
from axes_async.tasks.importing.sources import Record, Source
from axes_async.tasks.projection.bulk import insert
from axes_async.tasks.projection.writer_lock import writer_lock

PORTION = 500
"""Rows per transaction; a drain waits for it."""

OUTCOMES = ("attempts", "attempts whose cool-off is over", "logins", "failures", "log rows past their age")
"""What may become of a row."""

ATTEMPTS, COOLED_OFF, LOGINS, FAILURES, TOO_OLD = OUTCOMES


def rows_left(source: Source) -> int:
    """Return how many rows of ``source`` were not imported yet."""
    mark = DrainCursor.objects.using(database()).filter(name=source.mark).first()
    return source.count(int(mark.position) if mark is not None else 0)


def import_rows(source: Source, *, dry_run: bool = False) -> Iterator[tuple[int, Sums[str]]]:
    """Import what is new in ``source``; yield the number of rows of each portion, and what became of them.

    With ``dry_run``, each portion is written and rolled back. Counters are dirty afterwards: call ``sync_store``.
    """
    using, place = database(), 0
    while True:
        with writer_lock():
            mark, _ = DrainCursor.objects.using(using).get_or_create(name=source.mark, defaults={"position": "0"})
            records = source.read(max(place, int(mark.position)), PORTION)
            if records:
                place = records[-1].pk
                became = _write(records, using)
                mark.position, mark.moved_at = str(place), as_datetime(now_ms())
                mark.save(using=using, update_fields=["position", "moved_at"])
            if dry_run:
                transaction.set_rollback(True, using=using)
        if not records:
            return
        yield len(records), became


def _write(records: Sequence[Record], using: str) -> Sums[str]:
    settings, counts, became = get_settings(), Counts(using), Sums[str]()
    for model, kind, outcome, age in (
        (AccessLog, Kind.LOGGED_IN, LOGINS, settings.access_log_age),
        (AccessFailureLog, Kind.FAILED, FAILURES, settings.access_failure_log_age),
    ):
        logged = [record for record in records if record.event.kind is kind and record.logged is not None]
        oldest = now_ms() - age.total_seconds() * 1000 if age is not None else -inf
        kept = {UUID(record.event.id): record for record in logged if record.event.time > oldest}
        became[TOO_OLD] += len(logged) - len(kept)
        # They may be here already, should our position in the table have been lost.
        for known in model._default_manager.using(using).filter(event_id__in=kept).values_list("event_id", flat=True):
            del kept[known]
        rows = [model(**columns(one.event), **(one.logged or {}), event_id=event_id) for event_id, one in kept.items()]
        insert(model, rows, using=using)
        became[outcome] += len(rows)
    for record in records:
        if record.failures:
            became[ATTEMPTS if counts.add(record) else COOLED_OFF] += 1
    counts.write()
    return became
