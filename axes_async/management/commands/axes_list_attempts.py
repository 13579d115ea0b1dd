"""``manage.py axes_list_attempts``: what counts now, and what is locked."""

from typing import Any

from django.db.models import Q

from axes_async.clock import as_datetime, now_ms
from axes_async.errors import StoreUnavailable
from axes_async.inspection.attempts import PORTION, end_of, lockouts_of
from axes_async.management.base import AxesCommand
from axes_async.models import AccessAttempt, AttemptCounter, OutboxEvent, database
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store
from axes_async.tasks.projection.bulk import portions
from axes_async.text import printable


class Command(AxesCommand):
    """One line for each attempt, the latest first."""

    help = (
        "Lists access attempts: address, username, number of failures, and until when the client is locked ('-' if it "
        "is not), separated by tabs; on a terminal, in columns."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        counting = Q(expires_at=None) | Q(expires_at__gt=as_datetime(now_ms()))
        attempts = AccessAttempt.objects.using(database()).filter(counting)
        for some in portions(attempts.iterator(chunk_size=PORTION), PORTION):
            lockouts = lockouts_of(some)
            self._write([_told(attempt, lockouts[attempt.key]) for attempt in some])
        self._tell_what_is_missing()

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


def _told(attempt: AccessAttempt, lockouts: list[AttemptCounter]) -> list[str]:
    name, locked = "None" if attempt.username is None else printable(attempt.username), "-"
    if lockouts:
        end = end_of(lockouts)
        locked = "until a reset" if end is None else f"until {end:%Y-%m-%d %H:%M:%S %Z}".rstrip()
    return [str(attempt.ip_address), name, str(attempt.failures_since_start), locked]
