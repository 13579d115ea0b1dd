"""Imports what other packages have counted and logged into our rows: in portions, each row exactly once.

The position in a table is kept in the same transaction as what its rows became. So a run that is killed repeats nothing
and loses nothing, and a second one finds nothing new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction

from axes_async.clock import as_datetime, now_ms
from axes_async.conf import get_settings
from axes_async.models import AccessFailureLog, AccessLog, DrainCursor, database
from axes_async.tasks.importing.counts import Counts, columns
from axes_async.tasks.importing.sources import Record, Source
from axes_async.tasks.projection.bulk import insert
from axes_async.tasks.projection.writer_lock import writer_lock

PORTION = 500
"""Rows per transaction; a drain waits for it."""


@dataclass(slots=True)
class Totals:
    """What became of a table's rows."""

    read: int = 0
    attempts: int = 0
    """Rows whose failures count here now."""
    cooled_off: int = 0
    """Rows whose failures have expired; django-axes would delete them at the next login."""
    logins: int = 0
    failures: int = 0
    too_old: int = 0
    """Rows of the logs that the next purge would delete."""


def rows_left(source: Source) -> int:
    """Return how many rows of ``source`` were not imported yet."""
    mark = DrainCursor.objects.using(database()).filter(name=source.mark).first()
    return source.count(int(mark.position) if mark is not None else 0)


def import_rows(source: Source, totals: Totals, *, dry_run: bool = False) -> Iterator[int]:
    """Import what is new in ``source`` and add it to ``totals``; yield the number of rows of each portion.

    With ``dry_run``, each portion is written and rolled back. Counters are dirty afterwards: call ``sync_store``.
    """
    using, place = database(), 0
    while True:
        with writer_lock():
            mark, _ = DrainCursor.objects.using(using).get_or_create(name=source.mark, defaults={"position": "0"})
            records = source.read(max(place, int(mark.position)), PORTION)
            if records:
                place = records[-1].pk
                _write(source, records, totals, using)
                mark.position, mark.moved_at = str(place), as_datetime(now_ms())
                mark.save(using=using, update_fields=["position", "moved_at"])
            if dry_run:
                transaction.set_rollback(True, using=using)
        if not records:
            return
        yield len(records)


def _write(source: Source, records: Sequence[Record], totals: Totals, using: str) -> None:
    settings, counts = get_settings(), Counts(using)
    totals.read += len(records)
    logins = _to_log([record for record in records if record.login], settings.access_log_age, totals)
    failures = _to_log([record for record in records if record.failure], settings.access_failure_log_age, totals)
    totals.logins += _write_logins(source, logins, using)
    totals.failures += _write_failures(source, failures, using)
    for record in records:
        if record.failures:
            counting = counts.add(record)
            totals.attempts += counting
            totals.cooled_off += not counting
    counts.write()


def _to_log(records: Sequence[Record], age: timedelta | None, totals: Totals) -> list[Record]:
    """Return the records that the next purge would leave."""
    oldest = None if age is None else now_ms() - age.total_seconds() * 1000
    kept = [record for record in records if oldest is None or record.time > oldest]
    totals.too_old += len(records) - len(kept)
    return kept


def _write_logins(source: Source, records: Sequence[Record], using: str) -> int:
    known = _known(AccessLog, source, records, using)
    rows = [
        AccessLog(
            **columns(record),
            event_id=source.event_id(record.pk),
            session_hash=record.session_hash,
            logout_time=None if record.logout_time is None else as_datetime(record.logout_time),
        )
        for record in records
        if record.pk not in known
    ]
    insert(AccessLog, rows, using=using)
    return len(rows)


def _write_failures(source: Source, records: Sequence[Record], using: str) -> int:
    known = _known(AccessFailureLog, source, records, using)
    rows = [
        AccessFailureLog(**columns(record), event_id=source.event_id(record.pk), locked_out=record.locked_out)
        for record in records
        if record.pk not in known
    ]
    insert(AccessFailureLog, rows, using=using)
    return len(rows)


def _known(
    model: type[AccessLog] | type[AccessFailureLog], source: Source, records: Sequence[Record], using: str
) -> set[int]:
    """Return the keys of the records that have a row here already, should our position in the table have been lost."""
    ids = {source.event_id(record.pk): record.pk for record in records}
    rows = model._default_manager.using(using).filter(event_id__in=ids)
    return {ids[event_id] for event_id in rows.values_list("event_id", flat=True)}
