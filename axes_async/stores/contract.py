"""The contract of a store: what must happen in one indivisible step; ``answers.py`` has what each answers.

A store knows neither Django's settings nor its models; limits, windows and the time come in with each call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from axes_async.counters.events import AttemptEvent, CounterState
from axes_async.counters.rules import Counter
from axes_async.stores.results import Outcome


class Rows(Protocol):
    """What the database says of counters, for a store that has lost them."""

    def states(self, digests: Sequence[str]) -> Mapping[str, CounterState] | None:
        """Return those of ``digests`` that are live now, or ``None`` if no counter at all is.

        One that was taken back whole is live until it is forgotten.
        """

    def is_empty(self) -> bool:
        """Return whether no counter is live."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """An outbox as it is now."""

    name: str
    """Given with its first event, and another one after a flush: positions are only comparable under one name."""
    last: str
    """The last position it gave away."""
    events: int
    """How many events it keeps."""
    oldest: str = ""
    """The position of the first of them; '' without any."""


@dataclass(frozen=True, slots=True)
class Place:
    """One reservation on one counter."""

    digest: str
    token: str
    end: int
    """When its lease ends, in epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that could not be written."""

    position: str
    entry: bytes
    error: str


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
        :param lease: milliseconds after which an unsettled reservation ends; 0 checks, and takes none.
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
        again: bool = False,
    ) -> Outcome:
        """Count one failure on each of ``counters``, give back the reservations there and on ``release``, record.

        A counter that is locked already stays at its count, so that a lock is one number of failures for all.

        :param again: the attempt has held reservations, and this step may have been done already.
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
        again: bool = False,
    ) -> Outcome:
        """Give back the reservations on ``counters`` and ``clear``; start ``clear`` over where it is not locked.

        The event is recorded if ``always``, or if a counter was cleared. See ``fail`` for ``again``.
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
    def adjust(self, states: Sequence[CounterState], *, now: int, lease: int) -> None:
        """Take ``lifted`` over from what the rows say; a counter with no failures left starts over.

        It is a total, so that a repetition changes nothing, and meant for one life of the counter, its ``epoch``;
        another life is left alone.

        :param lease: milliseconds that open reservations on it may still last.
        """

    @abstractmethod
    def states(self, counters: Sequence[Counter], *, now: int) -> list[CounterState]:
        """Return the state of each of ``counters`` (failures 0 where there is none)."""

    @abstractmethod
    def probe(self) -> None:
        """Write something that does not matter; raises ``StoreUnavailable`` if that cannot be done."""


class OutboxStore(Store):
    """A store that keeps the events, in order, until they are trimmed."""

    has_outbox = True

    when_flushed: Callable[[bool], None] = staticmethod(lambda counted: None)
    """Called when the store turns out to have lost its counters, before it takes any step, with whether rows count."""

    @abstractmethod
    def read(self, after: str, count: int) -> list[tuple[str, AttemptEvent | bytes]]:
        """Return up to ``count`` events behind position ``after``, each with its own position.

        Bytes stand for an entry that is no event.
        """

    @abstractmethod
    def trim(self, name: str, position: str) -> None:
        """Drop the events up to and including ``position``, if the outbox is still the one of that name."""

    @abstractmethod
    def rest(self, position: str, *, linger: int = 0) -> bool:
        """End the time in which no nudge is due, if nothing is behind ``position``; return whether nothing was.

        :param linger: milliseconds for which it goes on, because another drain has been asked for.
        """

    @abstractmethod
    def digests(self) -> Iterator[list[str]]:
        """Return the names of all counters, in portions; those made or gone meanwhile may be among them or not."""

    @abstractmethod
    def forget(self, digests: Sequence[str], *, before: int, lease: int) -> None:
        """Have counters start over whose life began before ``before`` (epoch milliseconds)."""

    @abstractmethod
    def eviction(self) -> str:
        """Return the server's ``maxmemory-policy``; '' where it does not tell."""

    @abstractmethod
    def outbox(self) -> Outbox:
        """Return what there is to know of the outbox."""

    @abstractmethod
    def is_cold(self) -> bool:
        """Return whether counters are missing that the rows have."""

    @abstractmethod
    def cool(self) -> None:
        """Have every counter taken from the rows again before it is used."""

    @abstractmethod
    def hold(self, places: Sequence[Place], *, now: int) -> None:
        """Take over reservations that were made elsewhere, or that the store may have lost."""

    @abstractmethod
    def rebuild(self, states: Iterable[Sequence[CounterState]], *, now: int, lease: int) -> bool:
        """Take over all counters of the rows, in portions, but for those that are in use since; then be warm.

        Return whether that came to its end: not if the store was flushed or cooled meanwhile.
        """

    @abstractmethod
    def set_aside(self, entry: bytes, error: str) -> None:
        """Keep an entry that cannot be written, with what stands against it, until somebody looks at it."""

    @abstractmethod
    def dead_letters(self, after: str, count: int) -> list[DeadLetter]:
        """Return up to ``count`` entries that were set aside behind position ``after``."""

    @abstractmethod
    def dead_letter_count(self) -> int:
        """Return how many entries are set aside."""

    @abstractmethod
    def put_back(self, letter: DeadLetter, body: str, outcome: str) -> None:
        """Have an entry that was set aside, given by the parts of its wire form, written after all."""

    @abstractmethod
    def overflow(self) -> int:
        """Return how many events the outbox had no room for, since somebody took note of it."""

    @abstractmethod
    def forget_overflow(self) -> int:
        """Have that number start over; return what it was."""
