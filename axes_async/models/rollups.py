"""Rollups: what happened each minute, and who was behind the most of it each hour. The drain keeps them.

So a chart of a week reads some thousand small rows, however many attempts there were.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class AttemptRollup(models.Model):
    """The attempts of one minute, by their outcome."""

    minute = models.DateTimeField(primary_key=True)
    failed = models.PositiveIntegerField(default=0, help_text="Wrong passwords.")
    turned_away = models.PositiveIntegerField(default=0, help_text="Attempts that met a lockout.")
    logged_in = models.PositiveIntegerField(default=0)
    after_failures = models.PositiveIntegerField(default=0, help_text="Logins of names whose failures still counted.")
    lockouts = models.TextField(default="{}", help_text="How many counters were locked, by their parameters; JSON.")
    names = models.BinaryField(default=b"", help_text="A sketch of the distinct names of those that did not log in.")
    addresses = models.BinaryField(default=b"", help_text="The same of their addresses.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.minute}: {self.failed} failed, {self.turned_away} turned away, {self.logged_in} logged in"


class TopValues(models.Model):
    """The names, addresses, networks or agents that failed or were turned away most in one hour."""

    hour = models.DateTimeField()
    kind = models.CharField(max_length=16)
    counts = models.TextField(default="{}", help_text="How often each, at least; JSON.")

    class Meta:
        constraints = (models.UniqueConstraint(fields=("hour", "kind"), name="axes_async_top_of_an_hour"),)
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.hour}, {self.kind}"


class Dashboard(AttemptRollup):
    """What the admin shows of the rollups, under a name and a permission of its own."""

    class Meta:
        proxy = True
        verbose_name = _("dashboard")
        verbose_name_plural = _("dashboard")
        default_permissions = ("view",)
