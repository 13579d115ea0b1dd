"""What the failures of other packages count for here: attempts, and counters under the rules of our settings.

They are gathered for one portion of rows, and written in its transaction. The counters become dirty, so a sync writes
them into the store.
"""

from __future__ import annotations

from dataclasses import dataclass

from axes_async.client.keys import attempt_key, keys_of
from axes_async.clock import as_datetime, now_ms
from axes_async.conf import get_settings
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter
from axes_async.counters.state import CounterState
from axes_async.login.attempt import event_of
from axes_async.login.rules import counters_of, longest_cooloff
from axes_async.models import AccessAttempt, AttemptCounter, StoreState
from axes_async.stores.database.rows import STATE_FIELDS, keep_state, name_client, new_row, state_of
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.factory import get_store
from axes_async.tasks.importing.sources import MOST_FAILURES, Record
from axes_async.tasks.projection.bulk import ATTEMPT_KEY, known_attempts, upsert

ATTEMPT_FIELDS = (
    "attempt_time",
    "first_attempt_time",
    "failures_since_start",
    "expires_at",
    "path_info",
    "http_accept",
)

MOST_COUNTED = 1000
"""Failures that a counter has after an import, or its limit if that is more.

django-axes goes on counting while a client is locked, and a reset has to take all of that back.
"""


@dataclass(slots=True)
class _Share:
    """What a portion adds to one counter. Times are in epoch milliseconds."""

    counter: Counter
    event: AttemptEvent
    """Names the client."""
    expires_at: int
    """The latest end of its failures; 0 where only a reset ends them."""
    last: int
    """When the last of its failures was made."""
    failures: int = 0


class Counts:
    """The attempts and counters of one portion."""

    def __init__(self, using: str) -> None:
        """Count under the settings in force, for the database ``using``."""
        self.using = using
        self.settings = get_settings()
        self.now = now_ms()
        self.dirty = not isinstance(get_store(), DatabaseStore)  # No other store has copies of its counters.
        self.shares: dict[str, _Share] = {}
        self.attempts: dict[str, AccessAttempt] = {}

    def add(self, record: Record) -> bool:
        """Add the failures of a record that have not expired; return whether there are any."""
        event = event_of(Kind.FAILED, new_id(max(0, record.time)), record.client)
        credentials = {"username": record.client.username} if record.client.username else None
        counters = counters_of(self.settings, None, credentials, record.client)
        ends = {counter: _end(record, counter.rule.window_ms) for counter in counters}
        if ends:
            last = 0 if 0 in ends.values() else max(ends.values())
        else:  # No rule counts this client, but its attempt has a row.
            cooloff = longest_cooloff(self.settings)
            last = _end(record, 0 if cooloff is None else round(cooloff.total_seconds() * 1000))
        if 0 < last <= self.now:
            return False
        for counter, end in ends.items():
            if end == 0 or end > self.now:
                share = self.shares.setdefault(counter.digest, _Share(counter, event, end, record.time))
                share.last = max(share.last, record.time)
                share.failures += record.failures
                share.expires_at = _later(share.expires_at, end)
        self._add_attempt(record, event, last)
        return True

    def write(self) -> None:
        """Write attempts and counters. Call it under the writer lock."""
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
        for known in known_attempts(self.attempts.values(), self.using):
            if known.expires_at is None or known.expires_at > now:
                _join(self.attempts[known.key], known)
        upsert(AccessAttempt, list(self.attempts.values()), key=ATTEMPT_KEY, fields=ATTEMPT_FIELDS, using=self.using)

    def _write_counters(self) -> None:
        if not self.shares:
            return
        store = StoreState.objects.using(self.using).first() or StoreState()  # Resets change it under the writer lock.
        rows = self._locked_rows()
        for row in rows:
            share = self.shares[row.digest]
            state = state_of(row, void=store.void_generation)
            state.expire(self.now, share.counter.rule)
            if not state.failures:
                row.blocked = 0
            _count(state, share, self.now)
            limit = state.limit(share.counter.rule, self.now)
            keep_state(row, state, at=self.now, limit=limit, generation=store.generation)
            row.dirty = self.dirty
        upsert(AttemptCounter, rows, key="digest", fields=[*STATE_FIELDS, "blocked", "dirty"], using=self.using)

    def _locked_rows(self) -> list[AttemptCounter]:
        """Return the counters of the portion, locked; those that are missing are made.

        One statement makes and locks them in the order of their digests, as the steps of the database store do: a
        deadlock with a login is impossible.
        """
        rows = []
        for digest, share in sorted(self.shares.items()):
            row = new_row(digest, share.counter.rule.parameters, at=self.now)
            name_client(row, share.event)
            rows.append(row)
        upsert(AttemptCounter, rows, key="digest", fields=["parameters"], using=self.using)
        return list(AttemptCounter.objects.using(self.using).filter(digest__in=self.shares))


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


def _count(state: CounterState, share: _Share, now: int) -> None:
    """Add a share to the state of its counter, and lock the counter as its failures would have locked it."""
    rule = share.counter.rule
    added = min(share.failures, max(0, max(MOST_COUNTED, rule.limit) - state.failures))
    state.expires_at = _later(state.expires_at, share.expires_at) if state.failures else share.expires_at
    state.since = state.since or now
    if rule.rolling:
        state.ends = sorted([*state.ends, *[share.expires_at] * min(added, rule.limit)])[-rule.limit :]
        state.failures, state.expires_at = len(state.ends), state.ends[-1]
        return
    state.failures, state.ends = state.failures + added, []
    if rule.tiers and state.failures >= rule.limit:
        reached = rule.limit_at(state.failures, locked=True)
        state.locked_until = max(state.locked_until, share.last + rule.lockout_ms(reached))
        state.expires_at = max(state.expires_at, state.locked_until + rule.window_ms)


def _end(record: Record, window: int) -> int:
    """Return when the failures of a record expire under a cool-off of ``window`` ms; 0: only by a reset.

    That is the end of our cool-off or the time that the other package has noted, whichever is later: nobody is freed by
    moving over.
    """
    return max(record.time + window, record.expires_at or 0, 1) if window else 0


def _later(one: int, other: int) -> int:
    """Return the later of two ends, of which 0 is never."""
    return 0 if 0 in {one, other} else max(one, other)


def _join(row: AccessAttempt, other: AccessAttempt) -> None:
    """Add the failures of ``other`` to ``row``, which is of the same client."""
    row.failures_since_start = min(MOST_FAILURES, row.failures_since_start + other.failures_since_start)
    row.first_attempt_time = min(row.first_attempt_time, other.first_attempt_time)
    if row.expires_at is not None:
        row.expires_at = None if other.expires_at is None else max(row.expires_at, other.expires_at)
    if other.attempt_time > row.attempt_time:
        row.attempt_time, row.path_info, row.http_accept = other.attempt_time, other.path_info, other.http_accept
