"""What a step of a store answers: whether a password may be looked at, and how the counters stand afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from axes_async.counters.events import AttemptEvent
from axes_async.counters.rules import Counter
from axes_async.counters.state import Life


class Verdict(IntEnum):
    """What a reservation was answered; the numbers are those that the scripts return."""

    ALLOWED = 0
    LOCKED = 1
    BUSY = 2


PERMANENT = -1
"""``locked_until`` of a lockout that only a reset ends."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one step."""

    verdict: Verdict = Verdict.ALLOWED
    locked_until: int = 0
    """When the longest of the lockouts met ends, in epoch milliseconds; ``PERMANENT``; 0 without one."""
    limit: int = 0
    """The limit that was reached, the lowest where several were; 0 without a lockout, or where it is not known."""
    newly_locked: bool = False
    """Whether this very step locked a counter."""
    nudge: bool = False
    """Whether the outbox went from quiet to busy with this step."""
    event: AttemptEvent | None = None
    """The event to deliver, from a store that has no outbox of its own."""
    told: Sequence[bytes] = ()
    """How each counter stands after the step, as ``Heard`` takes it, from a store that may go away."""
    repeats: int = 0
    """How many attempts the lockout has turned away by now, where that is worth telling (``events.worth_a_row``)."""
    wait: int = 0
    """For how many milliseconds no place is given, where that is known of a ``BUSY`` one."""
    standing: Mapping[str, int] | None = None
    """The failures that a login found on its counters, by their digests; ``None`` without any."""


def outcome_of(
    lives: Iterable[tuple[Counter, Life]],
    now: int,
    *,
    newly: bool = False,
    event: AttemptEvent | None = None,
    repeats: int = 0,
) -> Outcome:
    """Return the answer where counters have these lives at ``now``: whether one is locked, and until when."""
    locked = [(counter.rule, life) for counter, life in lives if life.is_locked(counter.rule, now)]
    if not locked:
        return Outcome(event=event)
    ends = [life.lock_ends(rule) for rule, life in locked]
    until = PERMANENT if 0 in ends else max(ends)
    limit = min(life.limit(rule, now) for rule, life in locked)
    return Outcome(Verdict.LOCKED, until, limit, newly, event=event, repeats=repeats)
