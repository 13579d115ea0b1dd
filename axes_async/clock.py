"""The one clock: every decision and every event takes its time from here, so that a test can set it."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from django.conf import settings


def now_ms() -> int:
    """Return the time since the Unix epoch in milliseconds."""
    return time.time_ns() // 1_000_000


def as_datetime(ms: int) -> datetime:
    """Return ``ms`` (milliseconds since the Unix epoch) as rows keep it: aware in UTC, or naive without ``USE_TZ``.

    A naive one is in the site's own zone, as Django's are, and so has an hour twice where a summer time ends.
    """
    return datetime.fromtimestamp(ms / 1000, tz=UTC if settings.USE_TZ else None)
