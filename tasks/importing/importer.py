"""Imports what other packages have counted and logged into our rows: in portions, each row exactly once.

The position in a table is kept in the same transaction as what its rows became. So a run that is killed repeats nothing
and loses nothing, and a second one finds nothing new.
"""

from __future__ import annotations

from collections import Counter as Sums
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from math import inf
from uuid import UUID

from django.db import transaction

from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.counters.events import Kind
from axes_async.models import AccessFailureLog, AccessLog, DrainCursor, database
from axes_async.tasks.importing.columns import LeftOut
from axes_async.tasks.importing.counts import Counts, columns
from axes_async.tasks.importing.logins import LastLogins
from axes_async.tasks.importing.position import Position
from axes_async.tasks.importing.sources import Record, Source
from axes_async.tasks.projection.bulk import insert
from axes_async.tasks.projection.halving import write_halving
from axes_async.tasks.projection.writer_lock import writer_lock

PORTION = 500
"""Rows per transaction; a drain waits for it."""

OUTCOMES = ("attempts", "attempts whose cool-off is over", "logins", "failures", "log rows past their age", "left out")
"""What may become of a row."""

ATTEMPTS, COOLED_OFF, LOGINS, FAILURES, TOO_OLD, LEFT_OUT = OUTCOMES


@dataclass(frozen=True, slots=True)
class Portion:
    """What a transaction has done."""

    rows: int
    became: Sums[str]
    left_out: list[LeftOut]
    """Those of the rows that cannot be read, or that the database refuses; the next run looks for them again."""


def rows_left(source: Source) -> int:
    """Return how many rows of ``source`` are behind those that were read."""
    return source.count(_position(source).last)


def import_rows(source: Source, *, dry_run: bool = False) -> Iterator[Portion]:
    """Import what is new in ``source``, in portions.

    With ``dry_run``, each portion is written and rolled back. Counters are dirty afterwards: call ``sync_store``.
    """
    using, position = database(), _position(source)
    late = source.present(sorted(position.again()))
    is_mixed, first = source.kind == "tries", late[0] if late else position.last
    with closing(LastLogins(source, first)) if is_mixed else nullcontext() as logins:
        while True:
            with writer_lock():
                mark, _ = DrainCursor.objects.using(using).get_or_create(name=source.mark, defaults={"position": ""})
                if not dry_run:
                    position = Position.of(mark)
                some, late = late[:PORTION], late[PORTION:]
                if some:  # Another run may have read some of them meanwhile.
                    found = source.read_again(sorted(position.again().intersection(some)))
                else:
                    found = source.read(position.last, PORTION)
                records = [one for one in found if isinstance(one, Record)]
                left_out = [one for one in found if isinstance(one, LeftOut)]
                if found:
                    became, refused = write_halving(records, partial(_write, using=using, logins=logins), using=using)
                    left_out += [LeftOut.of(record.pk, "written", error) for record, error in refused]
                    became[LEFT_OUT] = len(left_out)
                    position.read([one.pk for one in found], left_out=[one.pk for one in left_out])
                    position.keep(mark)
                    mark.save(using=using, update_fields=["position", "again"])
                if dry_run:
                    transaction.set_rollback(True, using=using)
            if found:
                yield Portion(len(found), became, left_out)
            elif not some:
                return


def _position(source: Source) -> Position:
    return Position.of(DrainCursor.objects.using(database()).filter(name=source.mark).first())


def _write(records: Sequence[Record], using: str, logins: LastLogins | None) -> Sums[str]:
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
        if record.failures and not (logins is not None and logins.cleared(record)):
            became[ATTEMPTS if counts.add(record) else COOLED_OFF] += 1
    counts.write()
    return became
