"""What failures make of a counter: when it locks, for how long, and what of that has ended.

The same as ``common.lua`` and ``fail.lua`` do in Redis, for stores that count in Python. Pure: the time comes in.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from axes_async.counters.events import CounterState
from axes_async.counters.rules import Counter, Rule


@dataclass(slots=True)
class Life:
    """One life of a counter; all times are epoch milliseconds."""

    epoch: int = 0
    failures: int = 0
    lifted: int = 0
    expires_at: int = 0
    """When it starts over; 0: only by a reset."""
    locked_until: int = 0
    """When a tier's lockout ends."""
    ends: list[int] = field(default_factory=list)
    """When each failure ends, in order, where each does so alone."""

    @property
    def standing(self) -> int:
        """The failures that count."""
        return max(0, self.failures - self.lifted)

    def clear(self) -> None:
        """Count nothing any more."""
        self.epoch = self.failures = self.lifted = self.expires_at = self.locked_until = 0
        self.ends = []

    def settle(self, rule: Rule, now: int) -> None:
        """Leave out what has ended by ``now``."""
        if 0 < self.expires_at <= now:
            self.clear()
        if rule.rolling and not self.ends:  # It may have been counted under another rule so far.
            self.ends = [self.expires_at or now + rule.window_ms] * self.standing
        if self.ends:
            self.ends = [end for end in self.ends if end > now]
            self.lifted = max(self.lifted, self.failures - len(self.ends))

    def limit(self, rule: Rule, now: int) -> int:
        """Return the limit in force; 0: none."""
        return rule.limit_at(self.standing, locked=now < self.locked_until)

    def is_locked(self, rule: Rule, now: int) -> bool:
        """Return whether the limit is reached; the life has been settled for ``now``."""
        return 0 < self.limit(rule, now) <= self.standing

    def lock_ends(self, rule: Rule) -> int:
        """Return when the lockout that is in force ends; 0: only by a reset."""
        if rule.tiers:
            return self.locked_until
        return self.ends[-rule.limit] if self.ends else self.expires_at

    def count(self, rule: Rule, now: int, *, in_rows: bool = False) -> bool:
        """Count a failure, unless the counter is locked; return whether it is locked by this one.

        What is counted ``in_rows``, outside of the store, is taken off what was lifted there.
        """
        limit = self.limit(rule, now)
        if 0 < limit <= self.standing:
            return False
        if in_rows:
            self.lifted -= 1
        else:
            self.epoch = self.epoch or now
            self.failures += 1
        self.expires_at = now + rule.window_ms if rule.window_ms else 0
        if rule.rolling:
            insort(self.ends, self.expires_at)
            self.expires_at = self.ends[-1]
        else:
            self.ends = []
        if not 0 < limit <= self.standing:
            return False
        if rule.tiers:
            self._lock(rule, limit, now)
        return True

    def prolong(self, rule: Rule, now: int) -> None:
        """Have the lockout that is in force begin anew, unless only a reset ends it."""
        if rule.tiers:
            self._lock(rule, self.limit(rule, now), now)
        elif rule.window_ms:
            self.expires_at = now + rule.window_ms
            self.ends = [self.expires_at] * len(self.ends)

    def state(self, counter: Counter, now: int, *, cleared: bool = False) -> CounterState:
        """Return how ``counter`` stands with this life."""
        return CounterState(
            digest=counter.digest,
            parameters=counter.rule.parameters,
            epoch=self.epoch,
            failures=self.failures,
            lifted=self.lifted,
            expires_at=self.expires_at,
            limit=self.limit(counter.rule, now),
            cleared=cleared,
            locked_until=self.locked_until if self.locked_until > now else 0,
            ends=tuple(self.ends),
        )

    def lift(self, lifted: int, limit: int) -> None:
        """Take over the total of what was lifted; a tier's lockout ends if that leaves less than its ``limit``."""
        self.lifted = max(lifted, self.failures - len(self.ends)) if self.ends else lifted
        if self.standing < limit:
            self.locked_until = 0

    def _lock(self, rule: Rule, limit: int, now: int) -> None:
        self.locked_until = now + rule.lockout_ms(limit)
        self.expires_at = self.locked_until + rule.window_ms
