"""The contract of a store: what must happen in one atomic step (``step.py``), with what result (``results.py``).

A store knows no ``AXES_*`` settings: rules and limits come in with each call. Every time is in epoch milliseconds, by
the clock of the server that keeps the counters (``clock.fixed_ms`` sets another one in tests).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from axes_async.counters.events import AttemptEvent
from axes_async.counters.rules import Counter
from axes_async.counters.state import CounterState
from axes_async.stores.results import SeenCounter, StepResult
from axes_async.stores.step import Step, StepKind


class Store(ABC):
    """Counters with reservations.

    ``failures + open reservations`` of a counter never exceeds the limit through a reservation. It is open until it is
    settled (``fail``, ``succeed``, ``release``) or its lease ends.
    """

    @abstractmethod
    def do(self, step: Step) -> StepResult:
        """Do one step, atomically over all its counters.

        Raises ``StoreUnavailable`` where it could not be done or its answer did not arrive, and ``StoreIncomplete``,
        with nothing changed, where the store has not all counters of our database.
        """

    @abstractmethod
    def look(self, counters: Sequence[Counter]) -> list[SeenCounter]:
        """Return all that there is to see of each of ``counters``."""

    def states(self, counters: Sequence[Counter]) -> list[CounterState]:
        """Return how each of ``counters`` stands."""
        return [seen.state for seen in self.look(counters)]

    def probe(self) -> None:  # noqa: B027  (nobody looks after the database)
        """Write something that does not matter, over a connection of its own; raises ``StoreUnavailable``."""

    def close(self) -> None:  # noqa: B027  (most stores have nothing to close)
        """Close what is open and not in use now."""

    def release(self, token: str, counters: Sequence[Counter]) -> None:
        self.do(Step(StepKind.RELEASE, token, counters))

    def peek(self, counters: Sequence[Counter]) -> StepResult:
        return self.do(Step(StepKind.PEEK, counters=counters))


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedCounter:
    """A counter as rows have it, to be written into a store that lacks it."""

    digest: str
    state: CounterState
    blocked: int = 0
    """How many attempts its lockout has turned away."""
    reservations: Mapping[str, int] = field(default_factory=dict)
    """The end of each reservation's lease, by its token."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in an outbox: events are ordered by the generation they were appended in, then by their number."""

    generation: int = 0
    number: int = 0

    @classmethod
    def parse(cls, text: str | bytes) -> Position:
        """Return the position in a text like ``3-17``; raises ``ValueError`` for anything else."""
        generation, _, number = (text.decode() if isinstance(text, bytes) else text).partition("-")
        return cls(int(generation), int(number))

    def __str__(self) -> str:
        return f"{self.generation}-{self.number}"


@dataclass(frozen=True, slots=True)
class StoreKey:
    """What a store says of its counters (PROTOCOL: the key)."""

    status: str = ""
    """``"ok"``: complete. ``"stale"``: not to be used, but for rows that are not dirty. ``"lost"``: counters may be
    missing. ``""``: the store knows nothing of our database."""
    generation: int = 0
    void: int = 0
    """Counters of this generation, or an earlier one, count nothing."""
    last: Position = Position()
    """The last position that the outbox has given away."""


@dataclass(frozen=True, slots=True)
class OutboxSize:
    """An outbox as it is now."""

    events: int
    oldest: int = 0
    """When its first event happened, in epoch milliseconds; 0 without any."""
    overflow: int = 0
    """Events that it had no room for, since ``forget_overflow``."""
    dead_letters: int = 0
    """Entries that are set aside."""


class DeadLetter(NamedTuple):
    """An entry that could not be written."""

    position: str
    entry: bytes
    error: str


class OutboxStore(Store):
    """A store that a worker drains and keeps complete: counters beside the events that changed them.

    The login steps carry the generation that this process knows; told another one, they adopt it and are sent again.
    """

    generation: int
    """The generation that this process knows; 0 before it was told any."""

    sent_in: int = 0
    """The generation that a step was sent in last: one that was not answered may have been done in it."""

    @abstractmethod
    def read(self, after: Position, count: int) -> list[tuple[Position, AttemptEvent | bytes]]:
        """Return up to ``count`` entries behind ``after``, whatever the key says; bytes are what is no event."""

    @abstractmethod
    def trim(self, position: Position) -> None:
        """Drop the entries up to and including ``position``."""

    @abstractmethod
    def rearm(self, position: Position, *, pause: int = 0) -> bool:
        """If no event follows ``position``, let the next one ask for a nudge. Return True if none did.

        :param pause: milliseconds before it may, because a drain is on its way.
        """

    @abstractmethod
    def key(self) -> StoreKey:
        """Return what the store says of its counters."""

    @abstractmethod
    def invalidate(self, generation: int) -> StoreKey:
        """Let no step be done before ``complete``, unless the key has ``generation`` or a later one; return the key.

        It becomes ``lost`` if it was absent or lost, else ``stale``.
        """

    @abstractmethod
    def load(self, generation: int, counters: Sequence[SavedCounter]) -> bool:
        """Write counters over what the store has of them, and add their reservations.

        Return False, with nothing changed, unless the key is invalidated and of ``generation``; so does ``complete``.
        """

    @abstractmethod
    def complete(self, generation: int, void: int) -> bool:
        """Set the key from invalidated to ``ok``; counters of the generation ``void`` or before count nothing.

        A key that is ``lost`` also voids every counter that was not written by ``load`` in this generation.
        """

    @abstractmethod
    def push(self, generation: int, position: Position, counters: Sequence[SavedCounter], *, void: int = 0) -> str:
        """Write counters over a complete store, between two events; the generation becomes ``generation + 1``.

        Reservations of the store stay, those of the rows are added. Counters of the generation ``void`` or before count
        nothing from now on. Return ``"ok"``; with nothing changed, ``"refused"`` if the key is not ``ok`` and of this
        generation, or ``"conflict"`` if an event behind ``position`` tells of a counter: the rows do not have it yet.
        """

    @abstractmethod
    def size(self) -> OutboxSize:
        """Return what the outbox holds."""

    @abstractmethod
    def forget_overflow(self) -> int:
        """Start the number of events that found no room over; return what it was."""

    @abstractmethod
    def set_aside(self, entry: bytes, error: str) -> None:
        """Keep an entry that cannot be written until somebody looks at it."""

    @abstractmethod
    def dead_letters(self, after: str, count: int) -> list[DeadLetter]:
        """Return up to ``count`` entries that were set aside behind position ``after`` (``"0-0"``: from the first)."""

    @abstractmethod
    def put_back(self, letter: DeadLetter) -> bool:
        """Append an entry that was set aside to the outbox again, in one step; return whether it was there."""

    @abstractmethod
    def eviction(self) -> str:
        """Return the server's ``maxmemory-policy``; '' where it does not tell."""
