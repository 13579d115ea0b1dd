"""A step of a login on counters, as one value that every store is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from axes_async.counters.events import AttemptEvent
from axes_async.counters.rules import Counter

Known = Mapping[str, tuple[int, int]]
"""Failures by digest, and when the caller was told of them (epoch milliseconds)."""


class StepKind(StrEnum):
    """What a step does; the values are the names of the Redis store's functions."""

    RESERVE = "reserve"
    """Take one reservation on each counter, or none at all."""
    FAIL = "fail"
    """Count one failure on each counter, give the reservations back, append the event.

    A counter that is locked already stays at its count, so that a lock is one number of failures for all.
    """
    SUCCEED = "succeed"
    """Give the reservations back, clear what a login clears, append the event."""
    RELEASE = "release"
    """Give the reservations back and count nothing."""
    PEEK = "peek"
    """Look, and change nothing: ``LOCKED`` or ``ALLOWED``."""
    RECORD = "record"
    """Append an event that touches no counter."""


@dataclass(frozen=True, slots=True)
class Step:
    """One atomic step over all counters that it names."""

    kind: StepKind
    token: str = ""
    """Names the attempt, and its reservations: reserving again under the same token renews the lease."""
    counters: Sequence[Counter] = ()
    release: Sequence[Counter] = ()
    """Counters that a failure does not count on, and whose reservations it gives back."""
    event: AttemptEvent | None = None
    """What is recorded, ``fitted`` to the counters. A reservation records it if one is locked: one to ten, then each
    doubling."""
    clear: Sequence[Counter] = ()
    """Those of ``counters`` that a success clears, unless they are locked."""
    lease: int = 0
    """Milliseconds after which an unsettled reservation ends; 0 checks, and takes none."""
    extend: bool = False
    """Whether the cool-off of a locked counter starts anew."""
    always: bool = True
    """Whether a success that clears nothing is recorded."""
    held_in: int | None = None
    """The generation of the store in which the attempt has made its reservations; ``None`` if it holds none. While that
    generation lasts, they show whether the step was done."""
    again: bool = False
    """Whether the step may have been done already. Of an attempt that held reservations it was, if none is left."""
    known: Known | None = None
    """What the caller knows of lost counters. The larger of row and known counts, unless a reset came later."""

    @property
    def all_counters(self) -> Sequence[Counter]:
        """Every counter that the step touches."""
        return [*self.counters, *self.release] if self.release else self.counters

    @property
    def decides(self) -> bool:
        """Whether a password is looked at or not by the result."""
        return self.kind in {StepKind.RESERVE, StepKind.PEEK}

    @property
    def line(self) -> str:
        """What the step tells of, for a log."""
        return self.event.line() if self.event else "no event"
