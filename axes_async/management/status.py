"""How things stand: the store, the outbox, the broker, and whether drains and expiry come by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from celery import current_app
from django.db import DatabaseError

from axes_async.clock import as_datetime, now_ms
from axes_async.cursor import OUTBOX, database
from axes_async.delivery import publisher as outbox
from axes_async.errors import StoreUnavailable
from axes_async.models import AccessAttempt, DrainCursor
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store

LATE = timedelta(minutes=1)
"""How old the first event of the outbox may be: beat drains every few seconds."""

EXPIRY_LATE = timedelta(minutes=10)
"""How long a cooled-off attempt may wait: beat looks every minute or so."""

BEAT_LATE = timedelta(hours=1)
"""How long beat may be silent that has been seen before, where its schedule does not say how often it comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What ``axes_status`` tells; times are as rows have them, ``None`` is "never" or "not known"."""

    store: str
    """``"redis"``, or ``"cache"`` for a store without an outbox."""
    store_error: str | None = None
    cold: bool | None = None
    backlog: int | None = None
    oldest: datetime | None = None
    dead_letters: int | None = None
    overflow: int | None = None
    broker_error: str | None = None
    breakers: dict[str, str] = field(default_factory=dict)
    """Of store, broker and database: ``"closed"``, or ``"open"`` where a process that asks now leaves it alone next."""
    database_error: str | None = None
    last_drain: datetime | None = None
    last_expiry: datetime | None = None
    beat_seen: datetime | None = None
    """When beat last had something done that nobody else asks for: the expiry."""
    unmerged: bool = False
    expired_waiting: datetime | None = None
    """When the oldest attempt cooled off that is still there."""

    def problems(self, now: datetime) -> Iterator[str]:
        """Return what needs a person, each as a sentence."""
        if self.store_error:
            yield f"The store cannot be reached: {self.store_error}"
        if self.database_error:
            yield f"The database cannot be read: {self.database_error}"
        if self.broker_error:
            yield f"The broker takes no messages: {self.broker_error}"
        if self.cold:
            yield "The store is cold: no worker has rebuilt its counters yet, and each login asks the database."
        if self.oldest and now - self.oldest > LATE:
            yield f"Events wait since {self.oldest:%Y-%m-%d %H:%M:%S %Z}: is a worker running, and beat?"
        if self.dead_letters:
            yield f"{self.dead_letters} events could not be written: manage.py axes_dead_letters shows them."
        if self.overflow:
            yield f"{self.overflow} events found no room in the outbox and are lost: see AXES_OUTBOX_MAX."
        if self.expired_waiting and now - self.expired_waiting > EXPIRY_LATE:
            yield "Cooled-off attempts are not removed: is beat running, with the entries of beat_schedule()?"
        if self.beat_seen and now - self.beat_seen > max(EXPIRY_LATE, 3 * _beat_interval()):
            yield f"Nothing was heard of beat since {self.beat_seen:%Y-%m-%d %H:%M:%S %Z}: is it running, and a worker?"


def _beat_interval() -> timedelta:
    """Return how often beat has the expiry done."""
    for entry in (current_app.conf.beat_schedule or {}).values():
        every = entry.get("schedule") if entry.get("task") == "axes_async.expire" else None
        if isinstance(every, timedelta):
            return every
        if isinstance(every, int | float):
            return timedelta(seconds=every)
    return BEAT_LATE


def status() -> Status:
    """Look at everything; what cannot be reached is told as such, and raises nothing."""
    known: dict[str, Any] = {"store": "cache", "broker_error": outbox.broker_error()}
    store = get_store()
    if isinstance(store, OutboxStore):
        known["store"] = "redis"
        try:
            known |= _outbox(store)
        except StoreUnavailable as error:
            known["store_error"] = str(error)
    try:
        known |= _rows()
    except DatabaseError as error:
        known["database_error"] = str(error)
    errors = {name: known.get(f"{name}_error") for name in ("store", "broker", "database")}
    known["breakers"] = {name: "open" if error else "closed" for name, error in errors.items()}
    return Status(**known)


def _outbox(store: OutboxStore) -> dict[str, Any]:
    source = store.outbox()
    return {
        "cold": store.is_cold(),
        "backlog": source.events,
        "oldest": as_datetime(int(source.oldest.partition("-")[0])) if source.oldest else None,
        "dead_letters": store.dead_letter_count(),
        "overflow": store.overflow(),
    }


def _rows() -> dict[str, Any]:
    using, now = database(), as_datetime(now_ms())
    cooled_off = AccessAttempt.objects.using(using).filter(expires_at__lte=now).order_by("expires_at")
    known: dict[str, Any] = {"expired_waiting": cooled_off.values_list("expires_at", flat=True).first()}
    cursor = DrainCursor.objects.using(using).filter(name=OUTBOX).first()
    if cursor is not None:
        known |= {"last_drain": cursor.drained_at, "last_expiry": cursor.expired_at, "unmerged": cursor.unmerged}
        known["beat_seen"] = cursor.expired_at
    return known
