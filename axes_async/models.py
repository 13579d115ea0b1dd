"""The rows: what an operator looks at, and what the counters can be rebuilt from.

Only a drain writes them, one at a time, as a fold of the outbox. Every time is that of the attempt, not of the write.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from axes_async.counters.rules import DIGEST_LENGTH
from axes_async.fields import DigestField
from axes_async.text import printable


class AccessBase(models.Model):
    """Who tried, from where, and when."""

    username = models.CharField(_("username"), max_length=255, null=True, db_index=True)  # noqa: DJ001
    ip_address = models.GenericIPAddressField(_("IP address"), null=True, db_index=True)
    user_agent = models.CharField(_("user agent"), max_length=255)
    http_accept = models.CharField(_("HTTP accept"), max_length=255)
    path_info = models.CharField(_("path"), max_length=255)
    attempt_time = models.DateTimeField(_("attempt time"), db_index=True)

    class Meta:
        """No table of its own."""

        abstract = True
        ordering = ("-attempt_time", "-id")

    @property
    def shown_name(self) -> str:
        """The username, with nothing in it that could make it look like another one; '-' without any."""
        return "-" if self.username is None else printable(self.username)


class AccessAttempt(AccessBase):
    """The failures of one username, address and user agent, as long as they count.

    ``attempt_time`` is the time of the last one. The keys are digests of canonical values: a unique index over three
    long columns would be too wide for MySQL, and NULLs would never be equal in it.
    """

    key = DigestField(max_length=DIGEST_LENGTH, unique=True, editable=False)
    username_key = DigestField(max_length=DIGEST_LENGTH, db_index=True, editable=False)
    ip_address_key = DigestField(max_length=DIGEST_LENGTH, db_index=True, editable=False)
    user_agent_key = DigestField(max_length=DIGEST_LENGTH, editable=False)
    first_attempt_time = models.DateTimeField(_("first attempt time"))
    failures_since_start = models.PositiveIntegerField(_("failed logins"))
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True, db_index=True)

    class Meta(AccessBase.Meta):
        """Shown as “Access attempts”."""

        verbose_name = _("access attempt")
        verbose_name_plural = _("access attempts")

    def __str__(self) -> str:
        """Name the client and its failures."""
        return f"{self.failures_since_start} × {self.shown_name} @ {self.ip_address}"


class AccessLog(AccessBase):
    """A login, and when it ended."""

    event_id = models.UUIDField(unique=True, editable=False)
    logout_time = models.DateTimeField(_("logout time"), null=True, blank=True)
    session_hash = models.CharField(_("session key hash (SHA-256)"), max_length=64, default="", blank=True)

    class Meta(AccessBase.Meta):
        """Shown as “Access logs”."""

        verbose_name = _("access log")
        verbose_name_plural = _("access logs")
        indexes = (models.Index(fields=("session_hash",), name="axes_async_log_session"),)

    def __str__(self) -> str:
        """Name the user and the time."""
        return f"{self.shown_name} @ {self.attempt_time}"


class AccessFailureLog(AccessBase):
    """One failed attempt, or one that a lockout turned away."""

    event_id = models.UUIDField(unique=True, editable=False)
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
        """Shown as “Access failures”."""

        verbose_name = _("access failure")
        verbose_name_plural = _("access failures")

    def __str__(self) -> str:
        """Name the client and the time."""
        return f"{self.shown_name} @ {self.ip_address}, {self.attempt_time}"


class AttemptCounter(models.Model):
    """A counter of the store, as the last event that was written saw it; ``failures - lifted`` still count.

    ``failures`` is what the store counted, ``lifted`` what was taken back here, by resets, less what was counted here,
    while the store was away. ``epoch`` 0 is a counter that the store has not seen yet.

    It differs from the sum of the attempts' failures where a login has cleared one counter of an attempt and not the
    others, and it tells an old life of a counter from a new one (``epoch``).
    """

    digest = DigestField(max_length=DIGEST_LENGTH, primary_key=True)
    parameters = models.PositiveSmallIntegerField(help_text="A bit for each of policy.PARAMETERS.")
    username_key = DigestField(max_length=DIGEST_LENGTH, default="")
    ip_address_key = DigestField(max_length=DIGEST_LENGTH, default="")
    user_agent_key = DigestField(max_length=DIGEST_LENGTH, default="")
    username = models.CharField(max_length=255, null=True)  # noqa: DJ001
    ip_address = models.GenericIPAddressField(null=True)
    epoch = models.BigIntegerField()
    failures = models.PositiveIntegerField()
    lifted = models.IntegerField(default=0)
    limit = models.PositiveIntegerField()
    expires_at = models.DateTimeField(null=True, db_index=True)
    locked_until = models.DateTimeField(null=True, help_text="When a lockout ends that ends before the counter does.")
    ends = models.TextField(
        default="", help_text="When each failure ends, in epoch milliseconds, where each does so alone."
    )
    updated_at = models.DateTimeField()
    blocked = models.PositiveIntegerField(default=0)

    class Meta:
        """Found by a value under rules of one kind: a million counters of other kinds may share that value."""

        indexes = (
            models.Index(fields=("parameters", "username_key"), name="axes_async_by_username"),
            models.Index(fields=("parameters", "ip_address_key"), name="axes_async_by_address"),
            models.Index(fields=("parameters", "user_agent_key"), name="axes_async_by_agent"),
        )

    def __str__(self) -> str:
        """Name the counter."""
        return f"{self.digest}: {self.failures - self.lifted} of {self.limit}"


class AttemptPlace(models.Model):
    """A reservation that was made here while the store was away."""

    digest = DigestField(max_length=DIGEST_LENGTH, db_index=True)
    token = models.CharField(max_length=32)
    ends_at = models.DateTimeField(db_index=True)

    class Meta:
        """One place for each attempt and counter."""

        constraints = (models.UniqueConstraint(fields=("digest", "token"), name="axes_async_place"),)

    def __str__(self) -> str:
        """Name the counter and the end."""
        return f"{self.digest} until {self.ends_at}"


class AccessReset(models.Model):
    """A reset that was carried out: what it was to reach, and how many attempts went."""

    event_id = models.UUIDField(unique=True)
    reset_time = models.DateTimeField()
    reach = models.JSONField(default=dict)
    attempts = models.PositiveIntegerField()

    def __str__(self) -> str:
        """Name the time and the count."""
        return f"{self.reset_time}: {self.attempts}"


class DrainCursor(models.Model):
    """How far the outbox has been written. Its row is the lock that keeps drains one at a time."""

    name = models.CharField(max_length=32, primary_key=True)
    position = models.CharField(max_length=48, default="0-0")
    outbox = models.CharField(max_length=40, default="", help_text="Name of the outbox that the position is one of.")
    moved_at = models.DateTimeField(null=True)
    drained_at = models.DateTimeField(null=True)
    expired_at = models.DateTimeField(null=True)
    returns = models.PositiveIntegerField(default=0, help_text="How often the store has been used again after a loss.")
    unmerged = models.BooleanField(
        default=False, help_text="Whether the store has yet to be told of what was counted here."
    )

    def __str__(self) -> str:
        """Name the position."""
        return f"{self.name}: {self.position}"
