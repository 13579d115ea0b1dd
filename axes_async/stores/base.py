"""The contract of a store: what must happen in one indivisible step, and what each step answers.

A store knows neither Django's settings nor its models; limits, windows and the time come in with each call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from axes_async.events import AttemptEvent, CounterState
from axes_async.policy import Counter


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
    newly_locked: bool = False
    """Whether this very step locked a counter."""
    nudge: bool = False
    """Whether the outbox went from quiet to busy with this step."""
    event: AttemptEvent | None = None
    """The event to deliver, from a store that has no outbox of its own."""


@dataclass(frozen=True, slots=True)
class Lift:
    """Failures to take back from one counter, as ``reset`` does."""

    digest: str
    epoch: int
    """The counter's life that is meant; another life of it is left alone."""
    lifted: int
    """All failures ever taken back from this life, so that a repeated lift changes nothing."""


class Store(ABC):
    """Counters with reservations.

    Of one counter, ``failures + open reservations`` never exceeds the limit through ``reserve``; a reservation is
    open until it is settled (``fail``, ``succeed``, ``release``) or its lease ends. Every method is one indivisible
    step over all counters it is given, and raises ``StoreUnavailable`` when it could not be done or its answer did
    not arrive.
    """

    has_outbox: ClassVar[bool]
    """Whether events are appended in the same step as the count; else they come back in ``Outcome.event``."""

    @abstractmethod
    def reserve(
        self,
        token: str,
        counters: Sequence[Counter],
        event: AttemptEvent | None,
        *,
        now: int,
        lease: int,
        extend: bool,
    ) -> Outcome:
        """Take one reservation on each counter, or none at all.

        :param token: names the attempt; reserving again under the same token renews the lease.
        :param event: recorded if a counter is locked (its repetitions coalesced: one to ten, then each doubling).
        :param now: epoch milliseconds.
        :param lease: milliseconds after which an unsettled reservation ends.
        :param extend: whether a locked counter's cool-off starts anew.
        """

    @abstractmethod
    def fail(
        self,
        token: str,
        counters: Sequence[Counter],
        release: Sequence[Counter],
        event: AttemptEvent,
        *,
        now: int,
        lease: int,
        extend: bool,
    ) -> Outcome:
        """Count one failure on each of ``counters``, give back the reservations there and on ``release``, record.

        A counter that is locked already stays at its count, so that a lock is one number of failures for all.
        """

    @abstractmethod
    def succeed(
        self,
        token: str,
        counters: Sequence[Counter],
        clear: Sequence[Counter],
        event: AttemptEvent,
        *,
        now: int,
        lease: int,
        always: bool,
    ) -> Outcome:
        """Give back the reservations on ``counters`` and ``clear``; start ``clear`` over where it is not locked.

        The event is recorded if ``always``, or if a counter was cleared.
        """

    @abstractmethod
    def release(self, token: str, counters: Sequence[Counter], *, now: int) -> None:
        """Give back the reservations on ``counters`` and count nothing."""

    @abstractmethod
    def peek(self, counters: Sequence[Counter], *, now: int) -> Outcome:
        """Return ``LOCKED`` or ``ALLOWED`` and change nothing."""

    @abstractmethod
    def record(self, event: AttemptEvent) -> Outcome:
        """Append an event that touches no counter."""

    @abstractmethod
    def lift(self, lifts: Sequence[Lift], *, now: int, lease: int) -> None:
        """Take failures back; a counter without any left starts over.

        :param lease: milliseconds that open reservations on it may still last.
        """

    @abstractmethod
    def states(self, counters: Sequence[Counter], *, now: int) -> list[CounterState]:
        """Return the state of each of ``counters`` (failures 0 where there is none)."""


class OutboxStore(Store):
    """A store that keeps the events, in order, until they are trimmed."""

    has_outbox = True

    @abstractmethod
    def read(self, after: str, count: int) -> list[tuple[str, AttemptEvent | bytes]]:
        """Return up to ``count`` events behind position ``after``, each with its own position.

        Bytes stand for an entry that is no event.
        """

    @abstractmethod
    def trim(self, position: str) -> None:
        """Drop every event up to and including ``position``."""

    @abstractmethod
    def rest(self, position: str) -> bool:
        """End the time in which no nudge is due, if nothing is behind ``position``; return whether nothing was."""

    @abstractmethod
    def set_aside(self, entry: bytes, error: str) -> None:
        """Keep an entry that cannot be written, with what stands against it, until somebody looks at it."""
