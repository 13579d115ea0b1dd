"""The rows: what an operator looks at, and what a lost store is rebuilt from.

They are a replay of the outbox; while the database decides, its steps write the counters themselves.
"""

from __future__ import annotations

from django.db import router

from axes_async.models.access import AccessAttempt, AccessBase, AccessFailureLog, AccessLog, AccessReset, new_event_id
from axes_async.models.counters import AttemptCounter, CounterQuerySet, Lockout
from axes_async.models.rollups import AttemptRollup, Dashboard, TopValues
from axes_async.models.store import DrainCursor, Notice, OutboxEvent, StoreState

__all__ = [
    "AccessAttempt",
    "AccessBase",
    "AccessFailureLog",
    "AccessLog",
    "AccessReset",
    "AttemptCounter",
    "AttemptRollup",
    "CounterQuerySet",
    "Dashboard",
    "DrainCursor",
    "Lockout",
    "Notice",
    "OutboxEvent",
    "StoreState",
    "TopValues",
    "database",
    "new_event_id",
]


def database() -> str:
    """Return the alias of the database that our rows are written to."""
    return router.db_for_write(AttemptCounter)
