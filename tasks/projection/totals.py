"""What the site has counted since its beginning, in the row of the writer lock: metrics read it, and count no rows.

A batch adds to it in its own transaction, so an event counts exactly once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from axes_async.counters.events import AttemptEvent, Kind
from axes_async.models import DrainCursor
from axes_async.tasks.projection.rollups import lockouts_of, turned_away

OUTCOMES = {Kind.FAILED: "failed", Kind.BLOCKED: "turned_away", Kind.LOGGED_IN: "logged_in"}

ADMIN, SITE = "admin", "site"
"""The scopes: logins through the admin, and all others."""


def totals_of(events: Iterable[AttemptEvent]) -> Counter[str]:
    """Return what ``events`` add: attempts by outcome and scope, and lockouts by the parameters of their rule."""
    totals: Counter[str] = Counter()
    for event in events:
        if outcome := OUTCOMES.get(event.kind):
            scope = ADMIN if event.extra.get("scope") == ADMIN else SITE
            totals[f"attempts {outcome} {scope}"] += turned_away(event) if event.kind is Kind.BLOCKED else 1
        for change in lockouts_of(event):
            totals[f"lockouts {'+'.join(change.parameters)}"] += 1
    return totals


def add(cursor: DrainCursor, totals: Counter[str]) -> None:
    """Add ``totals`` to a cursor whose lock is held; the caller saves it."""
    cursor.totals = dict(Counter(cursor.totals) + totals)
