"""News of lockouts, noted in the transaction that writes their events: so none is forgotten, or told and not written.

They are told later, by a task of their own: no mail server holds up a drain.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from django.db import transaction

from axes_async.clock import as_datetime, now_ms
from axes_async.counters.events import AttemptEvent, CounterChange
from axes_async.delivery import publisher
from axes_async.models import Notice
from axes_async.notify.pace import key_of
from axes_async.tasks.projection.bulk import portions, upsert

PORTION = 500


def note_lockouts(events: Iterable[AttemptEvent], using: str) -> None:
    """Note the lockouts that ``events``, all of them failures, have set; whoever calls it holds the writer lock."""
    told: dict[str, list[str]] = {}
    for event in events:
        for change in event.changes:
            if change.counted and change.locked:
                told.setdefault(key_of("lockout", change.digest), []).append(json.dumps(_lockout(event, change)))
    now = as_datetime(now_ms())
    for keys in portions(told, PORTION):
        # A task that tells of some of them sets the same columns.
        known = Notice.objects.using(using).filter(key__in=keys).order_by("key").select_for_update().in_bulk()
        rows = [known.get(key) or Notice(key=key, until=now) for key in keys]
        for row in rows:
            row.waiting, row.count = told[row.key][-1], row.count + len(told[row.key])
        upsert(Notice, rows, key=["key"], fields=["waiting", "count"], using=using)
    if told:
        transaction.on_commit(_tell_soon, using=using, robust=True)


def _tell_soon() -> None:
    """Have a worker tell of them. Without one, the next expiry does: this may be the process that serves a login."""
    if publisher.has_worker():
        publisher.publish(publisher.NOTIFY, expires=publisher.DRAIN_EXPIRES)


def _lockout(event: AttemptEvent, change: CounterChange) -> dict[str, Any]:
    return {
        "parameters": change.parameters,
        "username": event.username,
        "ip_address": event.ip_address,
        "user_agent": event.user_agent,
        "path": event.path_info,
        "limit": change.limit,
        "at": event.time,
        "until": change.locked_until or change.expires_at,
    }
