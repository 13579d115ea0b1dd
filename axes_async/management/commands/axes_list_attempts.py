"""``manage.py axes_list_attempts``: what counts now."""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from axes_async.clock import as_datetime, now_ms
from axes_async.management.base import AxesCommand
from axes_async.models import AccessAttempt
from axes_async.text import printable


class Command(AxesCommand):
    """One line for each attempt: address, username and failures, with a tab between; the latest first."""

    help = "Lists access attempts: address, username and number of failures, separated by tabs."

    def handle(self, *args: Any, **options: Any) -> None:
        counting = Q(expires_at=None) | Q(expires_at__gt=as_datetime(now_ms()))
        for attempt in AccessAttempt.objects.filter(counting).iterator(chunk_size=1000):
            name = None if attempt.username is None else printable(attempt.username)
            self.stdout.write(f"{attempt.ip_address}\t{name}\t{attempt.failures_since_start}")
