"""``manage.py axes_list_attempts``: what counts now, and what is locked."""

from typing import Any

from django.db.models import Q

from axes_async.clock import as_datetime, now_ms
from axes_async.errors import StoreUnavailable
from axes_async.lockouts import end_of, lockouts_of
from axes_async.management.base import AxesCommand
from axes_async.models import AccessAttempt, OutboxEvent, database
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store
from axes_async.tasks.projection.bulk import portions
from axes_async.text import printable

PORTION = 1000
"""Attempts that are read, and whose lockouts are looked for, in one go."""


class Command(AxesCommand):
    """One line for each attempt, the latest first. A terminal gets a line of headings before."""

    help = (
        "Lists access attempts: address, username, number of failures, and until when the client is locked ('-' if it "
        "is not), separated by tabs."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if self.stdout.isatty():
            self.stdout.write("ADDRESS\tUSERNAME\tFAILURES\tLOCKED")
        counting = Q(expires_at=None) | Q(expires_at__gt=as_datetime(now_ms()))
        attempts = AccessAttempt.objects.using(database()).filter(counting)
        for some in portions(attempts.iterator(chunk_size=PORTION), PORTION):
            lockouts = lockouts_of(some)
            for attempt in some:
                locked, name = "-", None if attempt.username is None else printable(attempt.username)
                if lockouts[attempt.key]:
                    end = end_of(lockouts[attempt.key])
                    locked = "until a reset" if end is None else f"until {end:%Y-%m-%d %H:%M:%S %Z}".rstrip()
                self.stdout.write(f"{attempt.ip_address}\t{name}\t{attempt.failures_since_start}\t{locked}")
        self._tell_what_is_missing()

    def _tell_what_is_missing(self) -> None:
        store, missing = get_store(), OutboxEvent.objects.using(database()).count()
        try:
            missing += store.size().events if isinstance(store, OutboxStore) else 0
        except StoreUnavailable as error:
            self.stderr.write(f"The store cannot be read; it may know of more failures than this list: {error}")
        if missing:
            self.stderr.write(f"{missing} events are not in this list yet: a worker has still to write them.")
