"""How things stand: the store, both outboxes, the broker, and whether drain and expiry run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta

from celery import current_app
from django.db import DatabaseError

from axes_async.clock import as_datetime, now_ms
from axes_async.delivery import publisher
from axes_async.errors import StoreUnavailable
from axes_async.models import AccessAttempt, AttemptCounter, DrainCursor, OutboxEvent, StoreState, database
from axes_async.notify import problems
from axes_async.stores.cache import CacheStore
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store
from axes_async.tasks.projection.writer_lock import OUTBOX

LATE = timedelta(minutes=1)
"""How old the first event of an outbox may be: beat drains every few seconds."""

EXPIRY_LATE = timedelta(minutes=10)
"""How long an attempt may stay after its cool-off: beat looks every minute or so."""

BEAT_LATE = timedelta(hours=1)
"""How long beat may be silent if its schedule does not say how often it comes."""


@dataclass(slots=True)
class Status:
    """What ``axes_status`` tells. Times are as rows have them; ``None`` is "never" or "not known"."""

    store: str
    """``"redis"``, ``"cache"`` or ``"database"``."""
    store_error: str | None = None
    mode: str | None = None
    """Who decides logins now: ``"store"`` or ``"database"``."""
    complete: bool | None = None
    """Whether the store has all counters of the database; only a store with an outbox knows."""
    generation: int | None = None
    dirty_counters: int | None = None
    """Counters that the next sync writes into the store."""
    backlog: int | None = None
    """Events in the store's outbox."""
    table_backlog: int | None = None
    """Events in the outbox table: those that the database decided."""
    oldest: datetime | None = None
    """When the first event of both happened."""
    dead_letters: int | None = None
    overflow: int | None = None
    """Events that found no room in the store's outbox."""
    broker_error: str | None = None
    breakers: dict[str, str] = field(default_factory=dict)
    """Of store, broker and database: ``"closed"``, or ``"open"`` for one that did not answer just now."""
    database_error: str | None = None
    last_drain: datetime | None = None
    last_expiry: datetime | None = None
    beat_seen: datetime | None = None
    """When beat last had the expiry done, which nobody else asks for."""
    expired_waiting: datetime | None = None
    """When the cool-off of the oldest attempt ended that should be gone."""

    def found(self, now: datetime) -> Iterator[tuple[str, dict[str, object]]]:
        """Return what needs a person, each as one of ``notify.problems`` and what is to be put in there."""
        if self.store_error:
            yield problems.STORE_AWAY, {"error": self.store_error}
        if self.database_error:
            yield problems.DATABASE_AWAY, {"error": self.database_error}
        if self.broker_error:
            yield problems.BROKER_AWAY, {"error": self.broker_error}
        if self.complete is False and not self.store_error:
            yield problems.INCOMPLETE, {}
        if self.oldest and now - self.oldest > LATE:
            yield problems.EVENTS_WAIT, {"time": shown(self.oldest)}
        if self.dead_letters:
            yield problems.DEAD_LETTERS, {"number": self.dead_letters}
        if self.overflow:
            yield problems.OVERFLOW, {"number": self.overflow}
        if self.expired_waiting and now - self.expired_waiting > EXPIRY_LATE:
            yield problems.EXPIRED_STAY, {}
        if self.beat_seen and now - self.beat_seen > max(EXPIRY_LATE, 3 * _beat_interval()):
            yield problems.BEAT_SILENT, {"time": shown(self.beat_seen)}

    def problems(self, now: datetime) -> Iterator[str]:
        """Return what needs a person, each as a sentence."""
        return (text % values for text, values in self.found(now))

    def facts(self) -> Iterator[tuple[str, str]]:
        """Return each field's name and value, as ``axes_status`` prints them."""
        for one in fields(self):
            yield one.name.replace("_", " "), shown(getattr(self, one.name))


def shown(value: object) -> str:
    """Return a value as ``axes_status`` prints it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S %Z}".rstrip()
    if isinstance(value, dict):
        return ", ".join(f"{key} {state}" for key, state in value.items())
    return str(value)


def _beat_interval() -> timedelta:
    for entry in (current_app.conf.beat_schedule or {}).values():
        every = entry.get("schedule") if entry.get("task") == publisher.EXPIRE else None
        if isinstance(every, timedelta):
            return every
        if isinstance(every, int | float):
            return timedelta(seconds=every)
    return BEAT_LATE


def status(*, at_most: int | None = None) -> Status:
    """Look at everything. What cannot be reached is told as an error; nothing is raised.

    :param at_most: how far rows are counted; ``None``: to their end.
    """
    store = get_store()
    seen = Status("cache" if isinstance(store, CacheStore) else "database", broker_error=publisher.broker_error())
    try:
        _see_rows(seen, at_most)
    except DatabaseError as error:
        seen.database_error = str(error)
    if isinstance(store, OutboxStore):
        seen.store = "redis"
        try:
            _see_outbox(store, seen)
        except StoreUnavailable as error:
            seen.store_error = str(error)
    elif seen.store == "database":
        seen.mode = StoreState.DATABASE
    errors = {"store": seen.store_error, "broker": seen.broker_error, "database": seen.database_error}
    seen.breakers = {name: "open" if error else "closed" for name, error in errors.items()}
    return seen


def _see_outbox(store: OutboxStore, seen: Status) -> None:
    key, size = store.key(), store.size()
    seen.backlog, seen.dead_letters, seen.overflow = size.events, size.dead_letters, size.overflow
    if seen.generation is not None:
        ours = seen.mode == StoreState.STORE and key.generation >= seen.generation
        seen.complete = key.status == "ok" and ours
    if size.oldest:
        oldest = as_datetime(size.oldest)
        seen.oldest = min(oldest, seen.oldest or oldest)


def _see_rows(seen: Status, at_most: int | None) -> None:
    using, now = database(), as_datetime(now_ms())
    state = StoreState.current(using)
    events = OutboxEvent.objects.using(using).order_by("pk")
    expired = AccessAttempt.objects.using(using).filter(expires_at__lte=now).order_by("expires_at")
    seen.mode, seen.generation = state.mode, state.generation
    seen.dirty_counters = AttemptCounter.objects.using(using).filter(dirty=True)[:at_most].count()
    seen.table_backlog = events[:at_most].count()
    if first := events.first():
        seen.oldest = as_datetime(int(first.event_id.hex[:12], 16))
    seen.expired_waiting = expired.values_list("expires_at", flat=True).first()
    if cursor := DrainCursor.objects.using(using).filter(name=OUTBOX).first():
        seen.last_drain = cursor.drained_at
        seen.last_expiry = seen.beat_seen = cursor.expired_at
