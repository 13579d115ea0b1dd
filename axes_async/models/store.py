"""Who decides, what waits to be written, and how far the worker is."""

from __future__ import annotations

from django.db import models

from axes_async.counters.rules import DIGEST_LENGTH
from axes_async.fields import DigestField


class OutboxEvent(models.Model):
    """An event of a step that the database decided. It has changed the counters already; its log rows are to come."""

    event_id = models.UUIDField(unique=True)
    wire = models.TextField(help_text="The event, as AttemptEvent.wire() writes it.")

    def __str__(self) -> str:
        return str(self.event_id)


class StoreState(models.Model):
    """Who decides now: the store, or this database. One row; see docs/protocol.md."""

    STORE, DATABASE = "store", "database"

    generation = models.BigIntegerField(default=0)
    mode = models.CharField(max_length=8, default=STORE)
    void_generation = models.BigIntegerField(default=-1, help_text="Counters and events up to it count nothing.")
    voided_at = models.DateTimeField(null=True, help_text="When everything was reset last.")
    void_attempts_until = models.DateTimeField(
        null=True, help_text="The last attempt that this reset has voided; null: no void row is left to delete."
    )
    synced = models.BigIntegerField(default=0, help_text="The generation of the last sync that drained the store.")
    sync_until = models.DateTimeField(null=True, help_text="Until when another sync keeps away.")
    syncs = models.BigIntegerField(default=0, help_text="How many full syncs were completed.")
    pushes = models.BigIntegerField(default=0, help_text="How many portions of dirty counters were pushed.")
    reset_all_pending = models.BooleanField(default=False, help_text="Whether a reset of everything has only begun.")

    def __str__(self) -> str:
        return f"{self.mode}, generation {self.generation}"

    @classmethod
    def current(cls, using: str) -> StoreState:
        """Return the row, or what stands for it on a new site, which has none yet."""
        return cls._default_manager.using(using).filter(pk=1).first() or cls()


class DrainCursor(models.Model):
    """How far an outbox, or a table that is imported, has been written. The row of the outbox is the writer lock."""

    name = models.CharField(max_length=32, primary_key=True)
    position = models.CharField(max_length=48, default="0-0")
    drained_at = models.DateTimeField(null=True)
    expired_at = models.DateTimeField(null=True)
    totals = models.JSONField(default=dict, help_text="What was counted since the beginning: tasks.projection.totals.")
    again = models.JSONField(
        default=dict, help_text="Ids of an imported table that the next import looks for: tasks.importing.position."
    )

    def __str__(self) -> str:
        return f"{self.name}: {self.position}"


class Notice(models.Model):
    """What is not to be done again before a time: a mail, a request, the use of a link, news of a lockout."""

    key = DigestField(max_length=DIGEST_LENGTH, primary_key=True)
    until = models.DateTimeField(db_index=True)
    waiting = models.TextField(default="", help_text="What is to be told then, as JSON; of several things, the last.")
    count = models.PositiveIntegerField(default=0, help_text="How many there were.")
    channel = models.CharField(max_length=8, default="", help_text="Over what that is told: one of conf.CHANNELS.")

    def __str__(self) -> str:
        return f"{self.key}: {self.until}"
