"""What a step of a store returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from axes_async.counters.events import AttemptEvent
from axes_async.counters.state import CounterState


class Verdict(IntEnum):
    """What a reservation was answered; the numbers are those that the scripts return."""

    ALLOWED = 0
    LOCKED = 1
    BUSY = 2


PERMANENT = -1
"""``locked_until`` of a lockout that only a reset ends."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one step."""

    verdict: Verdict = Verdict.ALLOWED
    locked_until: int = 0
    """When the longest of the lockouts met ends, in epoch milliseconds; ``PERMANENT``; 0 without one."""
    limit: int = 0
    """The limit that was reached, the lowest where several were; 0 without a lockout."""
    newly_locked: bool = False
    """Whether this very step locked a counter."""
    nudge: bool = False
    """Whether the worker should be told that there is something to write."""
    event: AttemptEvent | None = None
    """The event to deliver, from a store that has no outbox of its own."""
    repeats: int = 0
    """How many attempts the lockout has turned away by now, where that is worth a row (``events.worth_a_row``)."""
    failures: Sequence[int] = ()
    """The active failures of each counter of the call, in its order: after a ``reserve`` or ``fail``, and before a
    ``succeed`` clears any."""


@dataclass(frozen=True, slots=True)
class SeenCounter:
    """A counter as it stands now, for those who look and decide nothing."""

    state: CounterState = field(default_factory=CounterState)
    blocked: int = 0
    """How many attempts its lockout has turned away."""
    reservations: int = 0
    """Those that are open."""
