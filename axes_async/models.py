"""The rows: what an operator looks at, and what a lost store is rebuilt from.

They are a replay of the outbox; while the database decides, its steps write the counters themselves. Every time is that
of the attempt, not of the write.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import models, router
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Least, Length, Substr
from django.utils import timezone
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from axes_async import rollups  # noqa: F401  (its models are of this app, too)
from axes_async.client.keys import attempt_key_of, ip_address_key, kinds_with, user_agent_key, username_key
from axes_async.clock import as_ms, now_ms
from axes_async.counters.events import new_id, parameter_bits
from axes_async.counters.rules import DIGEST_LENGTH
from axes_async.fields import ComputedDigestField, DigestField
from axes_async.text import printable


def new_event_id() -> UUID:
    """Return the id of a row that no event stands behind, because a site has made it by itself."""
    return UUID(new_id(now_ms()))


class AccessBase(models.Model):
    """Who tried, from where, and when."""

    username = models.CharField(_("username"), max_length=255, null=True)  # noqa: DJ001
    ip_address = models.GenericIPAddressField(_("IP address"), null=True)
    user_agent = models.CharField(_("user agent"), max_length=255, default="", blank=True)
    http_accept = models.CharField(_("HTTP accept"), max_length=255, default="", blank=True)
    path_info = models.CharField(_("path"), max_length=255, default="", blank=True)
    attempt_time = models.DateTimeField(_("attempt time"), default=timezone.now, db_index=True)

    class Meta:
        abstract = True
        ordering = ("-attempt_time", "-id")

    @property
    def shown_name(self) -> str:
        """The username, with nothing in it that could make it look like another one; '-' without any."""
        return "-" if self.username is None else printable(self.username)


class AccessAttempt(AccessBase):
    """The failures of one username, address and user agent while they count; ``attempt_time`` is that of the last.

    The keys are digests of canonical values: a unique index over three long columns would be too wide for MySQL, and
    NULLs would never be equal in it. They are filled in when a row is saved or created in bulk.
    """

    key = ComputedDigestField(max_length=DIGEST_LENGTH, editable=False)
    username_key = ComputedDigestField(max_length=DIGEST_LENGTH, db_index=True, editable=False)
    ip_address_key = ComputedDigestField(max_length=DIGEST_LENGTH, editable=False)
    user_agent_key = ComputedDigestField(max_length=DIGEST_LENGTH, editable=False)
    first_attempt_time = models.DateTimeField(_("first attempt time"), default=timezone.now)
    failures_since_start = models.PositiveIntegerField(_("failed logins"))
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)

    class Meta(AccessBase.Meta):
        verbose_name = _("access attempt")
        verbose_name_plural = _("access attempts")
        # The key alone would do; with the address before it, the index leads to the attempts of an address, too.
        constraints = (models.UniqueConstraint(fields=("ip_address_key", "key"), name="axes_async_one_per_client"),)
        indexes = (
            models.Index(fields=("expires_at",), name="axes_async_attempt_expiry", condition=~Q(expires_at=None)),
        )

    def __str__(self) -> str:
        who = f"{self.shown_name} @ {self.ip_address}"
        return f"Attempted Access: {self.attempt_time}, {self.failures_since_start} × {who}"  # As in django-axes.

    def save(self, *args: Any, **options: Any) -> None:
        if options.get("update_fields"):
            keys = {"key", "username_key", "ip_address_key", "user_agent_key"}
            options["update_fields"] = keys.union(options["update_fields"])
        super().save(*args, **options)

    def compute(self, name: str) -> str:
        if self.ip_address is None and self.ip_address_key and name in {"ip_address_key", "key"} and self.key:
            return str(getattr(self, name))  # Of what a server gave in place of an address; only the event knew it.
        if name == "key":
            return attempt_key_of(self.username, self.ip_address or "", self.user_agent)
        key_of = {"username_key": username_key, "ip_address_key": ip_address_key}.get(name, user_agent_key)
        return str(key_of(getattr(self, name.removesuffix("_key")) or ""))


class AccessLog(AccessBase):
    """A login, and when it ended."""

    event_id = models.UUIDField(default=new_event_id, unique=True, editable=False)
    logout_time = models.DateTimeField(_("logout time"), null=True, blank=True)
    session_hash = models.CharField(_("session key hash (SHA-256)"), max_length=64, default="", blank=True)

    class Meta(AccessBase.Meta):
        verbose_name = _("access log")
        verbose_name_plural = _("access logs")
        indexes = (
            models.Index(fields=("session_hash",), name="axes_async_log_session", condition=~Q(session_hash="")),
            models.Index(fields=("username", "attempt_time"), name="axes_async_log_username"),
            models.Index(fields=("ip_address", "attempt_time"), name="axes_async_log_address"),
        )

    def __str__(self) -> str:
        return f"Access Log for {self.shown_name} @ {self.attempt_time}"


class AccessFailureLog(AccessBase):
    """One failed attempt, or one that a lockout turned away."""

    event_id = models.UUIDField(default=new_event_id, unique=True, editable=False)
    locked_out = models.BooleanField(_("locked out"), default=False)
    repeats = models.PositiveIntegerField(
        _("turned away so far"),
        default=0,
        help_text=_(
            "How many attempts the lockout has turned away by then, this one included; rows are kept of the first ten "
            "and then at each doubling. 0: the password was looked at."
        ),
    )

    class Meta(AccessBase.Meta):
        verbose_name = _("access failure")
        verbose_name_plural = _("access failures")

    def __str__(self) -> str:
        end = ", locked out" if self.locked_out else ""
        return f"Failed access: {self.shown_name} @ {self.ip_address}, {self.attempt_time}{end}"


class CounterQuerySet(models.QuerySet["AttemptCounter"]):
    def live(self, at: datetime) -> CounterQuerySet:
        """Return those that have not expired at a time, and that no reset of everything has voided."""
        state = StoreState._default_manager.filter(pk=1).values("void_generation")
        return self.filter(
            Q(expires_at=None) | Q(expires_at__gt=at), generation__gt=Coalesce(models.Subquery(state), -1)
        )

    def locked(self, at: datetime) -> CounterQuerySet:
        """Return those that are locked at a time, as far as the rows know."""
        # Under a rolling window, failures expire one by one. The counter stays locked until fewer than ``limit`` are
        # left: until the end that stands at place ``limit`` from the right.
        place = Least(F("limit"), 10**8)  # A larger limit is never reached, and would overflow an integer column.
        digits = 13  # Of a time of the years 2001 to 2286 in epoch milliseconds.
        decisive = Substr("ends", Length("ends") + 2 - place * (digits + 1), digits)
        return (
            self.live(at)
            .alias(decisive=decisive)
            .filter(
                Q(ends="", locked_until=None) | Q(ends="", locked_until__gt=at) | Q(decisive__gt=str(as_ms(at))),
                limit__gt=0,
                failures__gte=F("limit"),
            )
        )

    def near(self, at: datetime) -> CounterQuerySet:
        """Return those that are near their limit at a time, and not locked, as far as the rows know."""
        locked = AttemptCounter._default_manager.locked(at).filter(pk=models.OuterRef("pk"))
        return self.live(at).filter(~models.Exists(locked), near_limit=True)


class AttemptCounter(models.Model):
    """A counter: how many failures of one rule and one client count now.

    While the store decides, a row is the replay of the store's events. While the database decides, the row itself is
    what logins count on; it is ``dirty`` then, until a sync has written it into the store.
    """

    digest = DigestField(max_length=DIGEST_LENGTH, primary_key=True)
    parameters = models.PositiveSmallIntegerField(help_text="A bit for each of counters.rules.PARAMETERS.")
    username_key = DigestField(max_length=DIGEST_LENGTH, default="")
    ip_address_key = DigestField(max_length=DIGEST_LENGTH, default="")
    user_agent_key = DigestField(max_length=DIGEST_LENGTH, default="")
    username = models.CharField(max_length=255, null=True)  # noqa: DJ001
    ip_address = models.GenericIPAddressField(null=True)
    failures = models.PositiveIntegerField(default=0, help_text="The active failures.")
    since = models.DateTimeField(null=True, help_text="When the first of them was counted.")
    limit = models.PositiveIntegerField(default=0, help_text="The limit in force; 0: it never locks.")
    expires_at = models.DateTimeField(null=True, help_text="When the counter starts over; null: only by a reset.")
    locked_until = models.DateTimeField(null=True, help_text="When the lockout of a tier ends.")
    ends = models.TextField(default="", help_text="When each failure expires (epoch ms), under a rolling window.")
    blocked = models.PositiveIntegerField(default=0, help_text="Attempts that the lockout has turned away.")
    changed_at = models.DateTimeField(help_text="When it was changed last, by the clock of the store.")
    forgiven_at = models.DateTimeField(null=True, help_text="When a reset took failures back last.")
    reservations = models.TextField(default="", help_text="Made while the database decided: token=end of the lease.")
    generation = models.BigIntegerField(default=0, help_text="The generation in which it began to count.")
    void_generation = models.BigIntegerField(default=-1, help_text="Events up to this generation count nothing here.")
    dirty = models.BooleanField(default=False, help_text="Whether the store's copy may differ.")
    near_limit = models.GeneratedField(
        expression=models.ExpressionWrapper(
            Q(failures__gt=0, limit__gt=0, failures__gte=F("limit") - F("limit") / 5 - 1), models.BooleanField()
        ),
        output_field=models.BooleanField(),
        db_persist=True,
        help_text="Whether it is locked, or lacks at most one failure and a fifth of the limit.",
    )

    objects = CounterQuerySet.as_manager()

    class Meta:
        # Indexes of some rows alone: each is one more page to write for every new counter. MySQL makes them full.
        indexes = (
            # Under rules of one kind: a million counters of other kinds may share the value.
            models.Index(
                fields=("parameters", "username_key"),
                name="axes_async_by_username",
                condition=Q(parameters__in=kinds_with("username")),
            ),
            models.Index(
                fields=("parameters", "ip_address_key"),
                name="axes_async_by_address",
                condition=Q(parameters__in=kinds_with("ip_address", alone=False)),
            ),
            # A counter of an agent and something else is found by the other value.
            models.Index(
                fields=("user_agent_key",),
                name="axes_async_by_agent",
                condition=Q(parameters=parameter_bits(("user_agent",))),
            ),
            models.Index(fields=("expires_at",), name="axes_async_counter_expiry", condition=~Q(expires_at=None)),
            models.Index(fields=("dirty", "digest"), name="axes_async_dirty", condition=Q(dirty=True)),
            models.Index(fields=("failures",), name="axes_async_empty", condition=Q(failures=0)),
            models.Index(fields=("near_limit", "changed_at"), name="axes_async_near", condition=Q(near_limit=True)),
            models.Index(
                fields=("near_limit", "parameters", "changed_at"),
                name="axes_async_near_by_rule",
                condition=Q(near_limit=True),
            ),
        )

    def __str__(self) -> str:
        return f"{self.digest}: {self.failures} of {self.limit}"


class Lockout(AttemptCounter):
    """A counter as people see it: what is locked, or near its limit."""

    class Meta:
        proxy = True
        default_permissions = ("view", "unlock")
        verbose_name = _("lockout")
        verbose_name_plural = format_lazy(
            " {}", _("Lockouts")
        )  # The admin sorts by it; a space is not shown, and first.

    def __str__(self) -> str:
        return " @ ".join(text for text in (printable(self.username or ""), self.ip_address) if text) or self.digest


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
    synced = models.BigIntegerField(default=0, help_text="The generation of the last sync that drained the store.")
    sync_until = models.DateTimeField(null=True, help_text="Until when another sync keeps away.")
    syncs = models.BigIntegerField(default=0, help_text="How many full syncs were completed.")
    pushes = models.BigIntegerField(default=0, help_text="How many portions of dirty counters were pushed.")
    reset_all_pending = models.BooleanField(default=False, help_text="Whether a reset of everything has only begun.")

    def __str__(self) -> str:
        return f"{self.mode}, generation {self.generation}"


class AccessReset(models.Model):
    """A reset: what it was to reach, who asked for it and why, and how many attempts went."""

    SCOPES = (
        ("all", _("everything")),
        ("both", _("all values given")),
        ("either", _("any value given")),
        ("rows", _("chosen attempts")),
        ("counter", _("one lockout")),
    )

    reset_time = models.DateTimeField(_("reset time"), db_index=True)
    scope = models.CharField(_("scope"), max_length=8, choices=SCOPES)
    username = models.CharField(_("username"), max_length=255, null=True)  # noqa: DJ001
    ip_address = models.GenericIPAddressField(_("IP address"), null=True)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    counters = models.PositiveIntegerField(_("counters"), default=0)
    by = models.CharField(_("by"), max_length=255, default="", blank=True)
    reason = models.CharField(_("reason"), max_length=255, default="", blank=True)

    class Meta:
        verbose_name = _("unlock")
        verbose_name_plural = _("unlocks")
        ordering = ("-reset_time", "-id")

    def __str__(self) -> str:
        return f"{self.reset_time}: {self.attempts}"


class DrainCursor(models.Model):
    """How far an outbox, or a table that is imported, has been written. The row of the outbox is the writer lock."""

    name = models.CharField(max_length=32, primary_key=True)
    position = models.CharField(max_length=48, default="0-0")
    moved_at = models.DateTimeField(null=True)
    drained_at = models.DateTimeField(null=True)
    expired_at = models.DateTimeField(null=True)
    totals = models.JSONField(default=dict, help_text="What was counted since the beginning: tasks.projection.totals.")

    def __str__(self) -> str:
        return f"{self.name}: {self.position}"


class Notice(models.Model):
    """What is not to be done again before a time: a mail, a request, the use of a link, news of a lockout."""

    key = DigestField(max_length=DIGEST_LENGTH, primary_key=True)
    until = models.DateTimeField(db_index=True)
    waiting = models.TextField(default="", help_text="What is to be told then, as JSON; of several things, the last.")
    count = models.PositiveIntegerField(default=0, help_text="How many there were.")

    def __str__(self) -> str:
        return f"{self.key}: {self.until}"


def database() -> str:
    """Return the alias of the database that our rows are written to."""
    return router.db_for_write(AttemptCounter)
