"""What failures of other packages count for here: attempts, and counters under the rules of the settings.

Gathered for one portion of rows, and written while the cursor is held.
"""

from __future__ import annotations

from dataclasses import dataclass

from axes_async.clock import as_datetime, now_ms
from axes_async.conf import get_settings
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter
from axes_async.counters.state import Life
from axes_async.ledger import keep, life_of
from axes_async.login.attempt import event_of
from axes_async.login.rules import counters_of, longest_cooloff
from axes_async.models import AccessAttempt, AttemptCounter
from axes_async.tasks.importing.sources import MOST_FAILURES, Record
from axes_async.tasks.projection.projector import ATTEMPT_FIELDS
from axes_async.tasks.projection.rows import attempt_key, keys_of, new_counter, upsert

COUNTER_FIELDS = (
    "epoch",
    "failures",
    "lifted",
    "blocked",
    "limit",
    "expires_at",
    "locked_until",
    "ends",
    "updated_at",
)

MOST_COUNTED = 1000
"""Failures that a counter takes over, or its limit if that is more: django-axes goes on counting while it is locked."""


@dataclass(slots=True)
class _Share:
    """What a portion adds to one counter."""

    counter: Counter
    event: AttemptEvent
    expires_at: int
    """The latest end of its failures, in epoch milliseconds; 0 where only a reset ends them."""
    last: int
    """When the last of its failures was made, in epoch milliseconds."""
    failures: int = 0


class Tally:
    """The attempts and the counters of one portion."""

    def __init__(self, using: str) -> None:
        """Count under the settings in force, and write to the database ``using``."""
        self.using = using
        self.settings = get_settings()
        self.now = now_ms()
        self.shares: dict[str, _Share] = {}
        self.attempts: dict[str, AccessAttempt] = {}

    def add(self, record: Record) -> bool:
        """Add the failures of a record where they still count; return whether they do anywhere."""
        event = event_of(Kind.FAILED, new_id(max(0, record.time)), record.client)
        credentials = {"username": record.client.username} if record.client.username else None
        counters = counters_of(self.settings, None, credentials, record.client)
        ends = {counter: _end(record, counter.rule.window_ms) for counter in counters}
        if ends:
            last = 0 if 0 in ends.values() else max(ends.values())
        else:  # Of a client that no rule counts, the attempt is a row all the same.
            cooloff = longest_cooloff(self.settings)
            last = _end(record, 0 if cooloff is None else round(cooloff.total_seconds() * 1000))
        if 0 < last <= self.now:
            return False
        for counter, end in ends.items():
            if end == 0 or end > self.now:
                share = self.shares.setdefault(counter.digest, _Share(counter, event, end, record.time))
                share.last = max(share.last, record.time)
                share.failures += record.failures
                share.expires_at = 0 if 0 in {share.expires_at, end} else max(share.expires_at, end)
        self._add_attempt(record, event, last)
        return True

    def write(self) -> None:
        """Write attempts and counters."""
        self._write_attempts()
        self._write_counters()

    def _add_attempt(self, record: Record, event: AttemptEvent, end: int) -> None:
        key = attempt_key(event)
        row = AccessAttempt(
            **columns(record),
            **{f"{name}_key": value for name, value in keys_of(event).items()},
            key=key,
            first_attempt_time=as_datetime(record.time),
            failures_since_start=record.failures,
            expires_at=as_datetime(end) if end else None,
        )
        if key in self.attempts:
            _join(row, self.attempts[key])
        self.attempts[key] = row

    def _write_attempts(self) -> None:
        now = as_datetime(self.now)
        for known in AccessAttempt.objects.using(self.using).filter(key__in=self.attempts):
            if known.expires_at is None or known.expires_at > now:
                _join(self.attempts[known.key], known)
        upsert(AccessAttempt, list(self.attempts.values()), key="key", fields=ATTEMPT_FIELDS, using=self.using)

    def _write_counters(self) -> None:
        """Count downwards in ``lifted``, as while the store is away: it holds whatever the store has counted since."""
        now = as_datetime(self.now)
        rows = {row.digest: row for row in AttemptCounter.objects.using(self.using).filter(digest__in=self.shares)}
        for digest, share in self.shares.items():
            row = rows.get(digest)
            end = as_datetime(share.expires_at) if share.expires_at else None
            if row is None:
                row = rows[digest] = new_counter(share.counter, share.event)
                row.expires_at = end
            elif row.lifted >= row.failures or (row.expires_at is not None and row.expires_at <= now):
                keep(Life(), row)  # Nothing of that life counts any more.
                row.blocked, row.expires_at = 0, end
            elif row.expires_at is not None:
                row.expires_at = None if end is None else max(row.expires_at, end)
            row.limit, row.updated_at = share.counter.rule.limit, now
            room = max(0, max(MOST_COUNTED, row.limit) - (row.failures - row.lifted))
            row.lifted -= min(room, share.failures)
            _lock(row, share, self.now)
        upsert(AttemptCounter, list(rows.values()), key="digest", fields=COUNTER_FIELDS, using=self.using)


def _lock(row: AttemptCounter, share: _Share, now: int) -> None:
    """Lock the row of a counter with tiers as its failures would have; let the failures of a window end as one."""
    rule, life = share.counter.rule, life_of(row)
    if rule.rolling:
        life.ends = sorted([*life.ends, *[share.expires_at] * min(share.failures, rule.limit)])[-rule.limit :]
    if rule.tiers and life.standing >= rule.limit:
        row.limit = rule.limit_at(life.standing, locked=True)
        life.locked_until = max(life.locked_until, share.last + rule.lockout_ms(row.limit))
        life.expires_at = max(life.expires_at, life.locked_until + rule.window_ms)
        if life.locked_until <= now:
            row.limit = rule.limit_at(life.standing, locked=False)
    keep(life, row)


def columns(record: Record) -> dict[str, object]:
    """Return what the rows of all kinds have in common."""
    return {
        "username": record.client.username,
        "ip_address": record.client.ip_address,
        "user_agent": record.client.user_agent,
        "http_accept": record.client.http_accept,
        "path_info": record.client.path_info,
        "attempt_time": as_datetime(record.time),
    }


def _end(record: Record, window: int) -> int:
    """Return when the failures of a record cease to count under a cool-off of ``window`` ms; 0: only by a reset.

    Whichever is later, our cool-off or what the other package has noted: nobody is freed by moving over.
    """
    return max(record.time + window, record.expires_at or 0, 1) if window else 0


def _join(row: AccessAttempt, other: AccessAttempt) -> None:
    """Have ``row`` stand for the failures of ``other`` too."""
    row.failures_since_start = min(MOST_FAILURES, row.failures_since_start + other.failures_since_start)
    row.first_attempt_time = min(row.first_attempt_time, other.first_attempt_time)
    if row.expires_at is not None:
        row.expires_at = None if other.expires_at is None else max(row.expires_at, other.expires_at)
    if other.attempt_time > row.attempt_time:
        row.attempt_time, row.path_info, row.http_accept = other.attempt_time, other.path_info, other.http_accept
