"""What failures make of a counter: when it locks, for how long, and what of that has expired.

The Lua library in ``stores/redis/scripts`` does the same on the server. Every store that counts in Python, the
projection and the importer use this class. Pure: the time comes in, in epoch milliseconds as everywhere.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from axes_async.counters.events import CounterChange
from axes_async.counters.rules import Rule


@dataclass(slots=True)
class CounterState:
    failures: int = 0
    """The active failures: counted, not expired, not forgiven."""
    since: int = 0
    """When the first of them was counted; 0 without any."""
    expires_at: int = 0
    """When the counter starts over; 0: only by a reset."""
    locked_until: int = 0
    """When the lockout of a tier ends, or has ended; 0 before the first one, and without tiers."""
    ends: list[int] = field(default_factory=list)
    """When each failure expires, in order, under a rule with a rolling window."""

    def clear(self) -> None:
        self.failures = self.since = self.expires_at = self.locked_until = 0
        self.ends = []

    def expire(self, now: int, rule: Rule | None = None) -> None:
        """Drop what has expired by ``now``; ``rule`` is the one in force, where the caller knows it."""
        if 0 < self.expires_at <= now:
            self.clear()
        if rule is not None and rule.rolling and not self.ends:
            # The rule became a rolling one after these failures were counted.
            self.ends = [self.expires_at or now + rule.window_ms] * self.failures
        if self.ends:
            self.ends = [end for end in self.ends if end > now]
            self.failures = len(self.ends)
            if not self.ends:
                self.clear()
        if rule is not None and rule.tiers and not self.locked_until and self.failures >= rule.limit:
            # The rule got its tiers after these failures were counted: they lock as if it had had them.
            reached = rule.limit_at(self.failures, locked=True)
            self.locked_until = max(self.since, self.expires_at - rule.window_ms) + rule.lockout_ms(reached)

    def limit(self, rule: Rule, now: int) -> int:
        """Return the limit in force; 0: none."""
        return rule.limit_at(self.failures, locked=now < self.locked_until)

    def is_locked(self, rule: Rule, now: int) -> bool:
        """Return whether the limit is reached; call ``expire`` first."""
        return 0 < self.limit(rule, now) <= self.failures

    def lock_ends(self, rule: Rule) -> int:
        """Return when the lockout in force ends; 0: only by a reset."""
        if rule.tiers:
            return self.locked_until
        return self.ends[-rule.limit] if self.ends else self.expires_at

    def count(self, rule: Rule, now: int) -> bool:
        """Count a failure, unless the counter is locked; return whether this failure locked it."""
        limit = self.limit(rule, now)
        if 0 < limit <= self.failures:
            return False
        self.since = self.since or now
        self.failures += 1
        self.expires_at = now + rule.window_ms if rule.window_ms else 0
        if rule.rolling:
            insort(self.ends, self.expires_at)
            self.expires_at = self.ends[-1]
        else:
            self.ends = []
        if not 0 < limit <= self.failures:
            return False
        if rule.tiers:
            self._lock(rule, limit, now)
        return True

    def prolong(self, rule: Rule, now: int) -> None:
        """Start the cool-off of the lockout in force anew, unless only a reset ends it."""
        if rule.tiers:
            self._lock(rule, self.limit(rule, now), now)
        elif rule.window_ms:
            self.expires_at = now + rule.window_ms
            self.ends = [self.expires_at] * len(self.ends)

    def forgive(self, failures: int, limit: int, now: int) -> int:
        """Take back the oldest ``failures``; return how many there were to take.

        The lockout of a tier ends if fewer than ``limit``, the limit that was in force, are left.
        """
        taken = min(failures, self.failures)
        self.failures -= taken
        self.ends = self.ends[taken:]
        if not self.failures:
            self.clear()
        elif self.failures < limit:
            self.locked_until = min(self.locked_until, now)
        return taken

    def replay(self, change: CounterChange, at: int, *, late: bool = False) -> None:
        """Apply what a store did to this counter at ``at``.

        :param late: a later change of the counter has been applied already; what this one says of the end of the
            counter then only prolongs it.
        """
        if change.cleared:
            self.clear()
            return
        self.expire(at)
        if change.counted:
            self.since = self.since or at
            self.failures += 1
            if change.end:
                missing = self.failures - 1 - len(self.ends)
                self.ends = sorted([*self.ends, *[change.end] * (missing + 1)])
            else:
                self.ends = []
        elif self.ends and change.prolonged:
            self.ends = [max(end, change.expires_at) for end in self.ends]
        if late and self.failures:
            never = 0 in (self.expires_at, change.expires_at) and self.failures > change.counted
            self.expires_at = 0 if never else max(self.expires_at, change.expires_at)
            self.locked_until = max(self.locked_until, change.locked_until)
        elif self.failures:
            self.expires_at, self.locked_until = change.expires_at, change.locked_until

    def _lock(self, rule: Rule, limit: int, now: int) -> None:
        self.locked_until = now + rule.lockout_ms(limit)
        self.expires_at = self.locked_until + rule.window_ms


def ends_text(ends: Iterable[int]) -> str:
    """Return ``ends`` as rows and scripts keep them: joined by commas."""
    return ",".join(map(str, ends))


def ends_of(text: str) -> list[int]:
    """Return what ``ends_text`` made ``text`` of."""
    return [int(end) for end in text.split(",")] if text else []
