"""What the failures of other packages count for here: attempts, and counters under the rules of our settings.

They are gathered for one portion of rows, and written in its transaction. The counters become dirty, so a sync writes
them into the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from axes_async.client.keys import attempt_key, keys_of
from axes_async.clock import LATEST, as_datetime, now_ms
from axes_async.conf import get_settings
from axes_async.counters.events import AttemptEvent
from axes_async.counters.rules import Counter, counters_for
from axes_async.counters.state import CounterState
from axes_async.login.rules_in_force import longest_cooloff, rules_for
from axes_async.models import AccessAttempt, AttemptCounter, StoreState
from axes_async.stores.database.rows import STATE_FIELDS, keep_state, name_client, new_row, state_of
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.factory import get_store
from axes_async.tasks.importing.sources import MOST_FAILURES, Record
from axes_async.tasks.projection.bulk import ATTEMPT_KEY, WHO, known_attempts, upsert, who
from axes_async.tasks.projection.projector import ATTEMPT_FIELDS

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
    failures: int


class Counts:
    """The attempts and counters of one portion, under the settings in force, for the database ``using``."""

    def __init__(self, using: str) -> None:
        self.using, self.settings, self.now = using, get_settings(), now_ms()
        self.shares: dict[str, _Share] = {}
        self.attempts: dict[str, AccessAttempt] = {}

    def add(self, record: Record) -> bool:
        """Add the failures of a record that have not expired; return whether there are any."""
        event, at = record.event, record.event.time
        credentials = {"username": event.username} if event.username else None
        counters = counters_for(rules_for(self.settings, None, credentials), record.canonical)
        windows = [counter.rule.window_ms for counter in counters]
        if not windows:  # No rule counts this client, but its attempt has a row.
            cooloff = longest_cooloff(self.settings)
            windows = [0 if cooloff is None else round(cooloff.total_seconds() * 1000)]
        # A failure expires by our cool-off or as the other package noted, whichever is later; 0: only by a reset.
        ends = [min(max(at + window, record.expires_at), LATEST) if window else 0 for window in windows]
        last = 0 if 0 in ends else max(ends)
        if 0 < last <= self.now:
            return False
        for counter, end in zip(counters, ends, strict=False):
            if end == 0 or end > self.now:
                share = self.shares.setdefault(counter.digest, _Share(counter, event, end, at, 0))
                share.last = max(share.last, at)
                share.failures += record.failures
                share.expires_at = _later(share.expires_at, end)
        row = AccessAttempt(
            **columns(event),
            **{f"{name}_key": value for name, value in keys_of(event).items()},
            key=attempt_key(event),
            first_attempt_time=as_datetime(at),
            failures_since_start=record.failures,
            expires_at=as_datetime(last) if last else None,
        )
        if row.key in self.attempts:
            _join(row, self.attempts[row.key])
        self.attempts[row.key] = row
        return True

    def write(self) -> None:
        """Write attempts and counters. Call it under the writer lock."""
        now = as_datetime(self.now)
        for known in known_attempts(self.attempts.values(), self.using):
            if known.expires_at is None or known.expires_at > now:
                _join(self.attempts[known.key], known)
        upsert(AccessAttempt, list(self.attempts.values()), key=ATTEMPT_KEY, fields=ATTEMPT_FIELDS, using=self.using)
        if self.shares:
            self._write_counters()

    def _write_counters(self) -> None:
        fresh = [new_row(digest, share.counter.rule.parameters, at=self.now) for digest, share in self.shares.items()]
        for row in fresh:
            name_client(row, self.shares[row.digest].event)
        # One statement makes those that are missing and locks all in the order of their digests, as the steps of the
        # database store do: a deadlock with a login is impossible.
        fresh.sort(key=lambda row: row.digest)
        upsert(AttemptCounter, fresh, key=["digest"], fields=["parameters"], using=self.using)
        rows = list(AttemptCounter.objects.using(self.using).filter(digest__in=self.shares))
        store = StoreState.current(self.using)  # Resets change it under the writer lock.
        dirty = not isinstance(get_store(), DatabaseStore)  # No other store has copies of its counters.
        for row in rows:
            share = self.shares[row.digest]
            state = state_of(row, void=store.void_generation)
            state.expire(self.now, share.counter.rule)
            if not state.failures:
                row.blocked = 0
            _count(state, share, self.now)
            limit = state.limit(share.counter.rule, self.now)
            keep_state(row, state, at=self.now, limit=limit, generation=store.generation)
            row.dirty = dirty
        upsert(AttemptCounter, rows, key=["digest"], fields=[*STATE_FIELDS, "blocked", "dirty"], using=self.using)


def columns(event: AttemptEvent) -> dict[str, Any]:
    """Return what the rows of all kinds have in common."""
    return dict(zip(WHO, who(event, as_datetime(event.time)), strict=True))


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
        state.locked_until = min(max(state.locked_until, share.last + rule.lockout_ms(reached)), LATEST)
        state.expires_at = min(max(state.expires_at, state.locked_until + rule.window_ms), LATEST)


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
