"""What counts: the rows of counters, from which a lost store is rebuilt."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Case, F, Q, When
from django.db.models.functions import Coalesce, Least, Length, Substr
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from axes_async.client.keys import kinds_with
from axes_async.clock import as_ms
from axes_async.counters.events import parameter_bits
from axes_async.counters.rules import DIGEST_LENGTH
from axes_async.fields import DigestField
from axes_async.models.store import StoreState
from axes_async.text import printable


class CounterQuerySet(models.QuerySet["AttemptCounter"]):
    def counting(self) -> CounterQuerySet:
        """Return those that count anything: some have expired, but none was voided by a reset of everything."""
        void = StoreState._default_manager.filter(pk=1).values("void_generation")
        return self.filter(failures__gt=0, generation__gt=Coalesce(models.Subquery(void), -1))

    def locked(self, at: datetime) -> CounterQuerySet:
        """Return those that are locked at a time, as far as the rows know."""
        return self._live(at).filter(_locked(at))

    def near(self, at: datetime) -> CounterQuerySet:
        """Return those that are near their limit at a time, and not locked, as far as the rows know."""
        # A condition that is NULL is no condition that is not met: so not ``~_locked(at)``.
        is_locked = Case(When(_locked(at), then=True), default=False, output_field=models.BooleanField())
        return self._live(at).alias(is_locked=is_locked).filter(near_limit=True, is_locked=False)

    def _live(self, at: datetime) -> CounterQuerySet:
        # Under a rolling window, failures expire one by one. The counter stays locked until fewer than ``limit`` are
        # left: until the end that stands at place ``limit`` from the right.
        place = Least(F("limit"), 10**8)  # A larger limit is never reached, and would overflow an integer column.
        digits = 13  # Of a time of the years 2001 to 2286 in epoch milliseconds.
        decisive = Substr("ends", Length("ends") + 2 - place * (digits + 1), digits)
        return self.counting().filter(Q(expires_at=None) | Q(expires_at__gt=at)).alias(decisive=decisive)


def _locked(at: datetime) -> Q:
    """Return the condition that a counter is locked at a time, where it is live and has ``decisive``."""
    return Q(
        Q(ends="", locked_until=None) | Q(ends="", locked_until__gt=at) | Q(decisive__gt=str(as_ms(at))),
        limit__gt=0,
        failures__gte=F("limit"),
    )


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
