"""``manage.py axes_list_attempts``: what counts now, and what is locked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from axes_async.clock import as_datetime, now_ms
from axes_async.errors import StoreUnavailable
from axes_async.inspection.attempts import PORTION, end_of, lockouts_of
from axes_async.management.base import AxesCommand
from axes_async.models import AccessAttempt, AttemptCounter, OutboxEvent, database
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store
from axes_async.text import printable


class Command(AxesCommand):
    """One line for each attempt, the latest first; at the end those that have failed while the list was written."""

    help = (
        "Lists access attempts: address, username, number of failures, and until when the client is locked ('-' if it "
        "is not), separated by tabs; on a terminal, in columns."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        counting = Q(expires_at=None) | Q(expires_at__gt=as_datetime(now_ms()))
        attempts = AccessAttempt.objects.using(database()).filter(counting).order_by("-attempt_time", "-pk")
        listed_at = self._list(attempts)
        if listed_at is not None:
            # They have moved to the front, where the list may have been already.
            self._list(attempts.filter(attempt_time__gt=listed_at))
        self._tell_what_is_missing()

    def _list(self, attempts: QuerySet[AccessAttempt]) -> datetime | None:
        """Write ``attempts``; return the time of the latest, ``None`` if there are none."""
        latest = None
        for some in _portions(attempts):
            latest = latest or some[0].attempt_time
            lockouts = lockouts_of(some)
            self._write([_told(attempt, lockouts[attempt.key]) for attempt in some])
        return latest

    def _write(self, rows: list[list[str]]) -> None:
        """Write a portion: for a program with tabs, for a person under headings."""
        if not self.stdout.isatty():
            self.stdout.write("\n".join("\t".join(row) for row in rows))
            return
        rows.insert(0, ["ADDRESS", "USERNAME", "FAILURES", "LOCKED"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self.stdout.write("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())

    def _tell_what_is_missing(self) -> None:
        store, missing = get_store(), OutboxEvent.objects.using(database()).count()
        try:
            missing += store.size().events if isinstance(store, OutboxStore) else 0
        except StoreUnavailable as error:
            self.stderr.write(f"The store cannot be read; it may know of more failures than this list: {error}")
        if missing:
            self.stderr.write(f"{missing} events are not in this list yet: a worker has still to write them.")


def _portions(attempts: QuerySet[AccessAttempt]) -> Iterator[list[AccessAttempt]]:
    """Return ``attempts`` by portions, each with a query of its own: some drivers read a whole result into memory."""
    portion = list(attempts[:PORTION])
    while portion:
        yield portion
        last = portion[-1]
        behind = attempts.filter(Q(attempt_time__lt=last.attempt_time) | Q(pk__lt=last.pk))
        portion = list(behind.filter(attempt_time__lte=last.attempt_time)[:PORTION]) if len(portion) == PORTION else []


def _told(attempt: AccessAttempt, lockouts: list[AttemptCounter]) -> list[str]:
    name, locked = "None" if attempt.username is None else printable(attempt.username), "-"
    if lockouts:
        end = end_of(lockouts)
        locked = "until a reset" if end is None else f"until {end:%Y-%m-%d %H:%M:%S %Z}".rstrip()
    return [str(attempt.ip_address), name, str(attempt.failures_since_start), locked]
