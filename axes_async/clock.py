"""The one clock: every decision and every event takes its time from here, so that a test can set it."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Return the time since the Unix epoch in milliseconds."""
    return time.time_ns() // 1_000_000


def as_datetime(ms: int) -> datetime:
    """Return ``ms`` (milliseconds since the Unix epoch) as an aware datetime in UTC."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC)
