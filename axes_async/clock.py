"""Clocks: that of this host, and the one that a store decides by.

A store takes the time from the server that keeps its counters, so that a host whose clock is wrong neither prolongs nor
ends a lockout. Tests set another one: ``clock.fixed_ms``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from django.conf import settings
from django.utils.timesince import timeuntil
from django.utils.timezone import get_default_timezone, is_naive, make_aware, make_naive

fixed_ms: Callable[[], int] | None = None
"""Returns the time that stores take in place of their server's, in epoch milliseconds; tests set it."""


EARLIEST = int(datetime(1970, 1, 2, tzinfo=UTC).timestamp() * 1000)
"""The first time that a row of ours has, in epoch milliseconds: above 0, which stands for no time, in every zone."""

LATEST = int(datetime(2286, 1, 1, tzinfo=UTC).timestamp() * 1000)
"""The last time that a row or a counter gets from elsewhere, in epoch milliseconds; "for ever" ends here.

It has 13 digits, as all times since 2001, so that ``AttemptCounter.ends`` compares as text. From 10^14 on, Lua would
write 2.5e+14. And whatever is added to it, in whatever zone, is a ``datetime``.
"""


def now_ms() -> int:
    """Return this host's time since the Unix epoch in milliseconds."""
    return time.time_ns() // 1_000_000


def as_datetime(ms: int) -> datetime:
    """Return ``ms`` (milliseconds since the Unix epoch) as rows have it: aware, or local where ``USE_TZ`` is off."""
    moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    return moment if settings.USE_TZ else make_naive(moment, get_default_timezone())


def until_in_words(until: int, at: int, *, depth: int = 2) -> str:
    """Return in Django's words how long it is from ``at`` to ``until``, in epoch milliseconds, whatever clocks do."""
    end, start = (datetime.fromtimestamp(ms / 1000, tz=UTC) for ms in (until, at))
    return timeuntil(end, start, depth=depth)


def as_ms(moment: datetime) -> int:
    """Return what ``as_datetime`` made ``moment`` of; an hour that a clock goes through twice is taken as the first."""
    if is_naive(moment):
        moment = make_aware(moment, get_default_timezone())
    return round(moment.timestamp() * 1000)


def as_bounded_ms(moment: datetime) -> int:
    """Return ``as_ms(moment)``, from ``EARLIEST`` to ``LATEST``, of any ``datetime`` that there is."""
    # At the ends of what a datetime holds, a change of the zone overflows.
    if not 1970 <= moment.year < 2286:
        return EARLIEST if moment.year < 1970 else LATEST
    return min(max(as_ms(moment), EARLIEST), LATEST)
