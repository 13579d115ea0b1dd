"""What happened: attempts, logins, failures and resets, as an operator looks at them.

Every time is that of the attempt, not of the write.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from axes_async.client.keys import attempt_key_of, ip_address_key, user_agent_key, username_key
from axes_async.clock import now_ms
from axes_async.counters.events import new_id
from axes_async.counters.rules import DIGEST_LENGTH
from axes_async.fields import ComputedDigestField
from axes_async.text import printable


def new_event_id() -> UUID:
    """Return the id of a row that no event stands behind, because a site has made it by itself."""
    return UUID(new_id(now_ms()))


def indexes_of_client(log: str) -> tuple[models.Index, models.Index]:
    """Return the indexes of a log that lead to its latest rows of a name, and of an address.

    PostgreSQL's class of the first one compares bytes, which finds the beginning of a name too, and costs a drain less
    than comparing by the rules of a language.
    """
    name = models.Index(
        fields=("username", "attempt_time"),
        name=f"axes_async_{log}_username",
        opclasses=("varchar_pattern_ops", "timestamptz_ops"),
    )
    return name, models.Index(fields=("ip_address", "attempt_time"), name=f"axes_async_{log}_address")


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
            *indexes_of_client("log"),
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
        indexes = (
            *indexes_of_client("failure"),
            # A lockout is one row of many: without it, a list of them would read the whole log.
            models.Index(
                fields=("attempt_time", "repeats"), name="axes_async_failure_locked", condition=Q(locked_out=True)
            ),
        )

    def __str__(self) -> str:
        end = ", locked out" if self.locked_out else ""
        return f"Failed access: {self.shown_name} @ {self.ip_address}, {self.attempt_time}{end}"


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
