"""What the rows say of counters, for a store that has lost them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from django.db import DatabaseError, InterfaceError, connections, router
from django.db.models import Q, QuerySet

from axes_async.clock import as_datetime, as_ms, now_ms
from axes_async.counters.events import CounterState, parameters_of
from axes_async.counters.state import Life
from axes_async.cursor import database
from axes_async.errors import StoreCold
from axes_async.group_commit import in_group

if TYPE_CHECKING:
    from axes_async.models import AttemptCounter

T = TypeVar("T")

PORTION = 100
"""Counters that a rebuild takes over in one step of the store."""


class Ledger:
    """``stores.base.Rows`` on the table of counters."""

    def states(self, digests: Sequence[str]) -> Mapping[str, CounterState] | None:
        """Return the live counters among ``digests``, ``None`` if there are none at all.

        Raises ``StoreCold`` if that cannot be read.
        """

        def look() -> list[AttemptCounter] | None:
            rows = list(self._live().filter(digest__in=digests))
            return rows if rows or self._live().exists() else None

        try:
            rows = _after_drains(look)
        except (DatabaseError, InterfaceError) as error:
            raise StoreCold(f"Neither the store nor the database knows the counters: {error}") from error
        return None if rows is None else {row.digest: state_of(row) for row in rows}

    def is_empty(self) -> bool:
        """Return whether no counter is live; raises ``StoreCold`` if that cannot be read."""
        try:
            return not _after_drains(lambda: self._live().exists())
        except (DatabaseError, InterfaceError) as error:
            raise StoreCold(f"Neither the store nor the database knows the counters: {error}") from error

    def portions(self) -> Iterator[list[CounterState]]:
        """Return every live counter, in portions that follow the primary key.

        Those that were taken back whole are among them: a store that was away while they were must hear of it.
        """
        last = ""
        while rows := list(self._live().filter(digest__gt=last).order_by("digest")[:PORTION]):
            yield [state_of(row) for row in rows]
            last = rows[-1].digest

    @staticmethod
    def _live() -> QuerySet[AttemptCounter]:
        from axes_async.models import AttemptCounter

        live = Q(expires_at=None) | Q(expires_at__gt=as_datetime(now_ms()))
        using = router.db_for_write(AttemptCounter)
        return AttemptCounter.objects.using(using).filter(live)


def _after_drains(look: Callable[[], T]) -> T:
    """Look only when no drain is at work: it may hold events of a store that has been flushed since it read them.

    In a caller's transaction the cursor would stay held to its end, so there the rows are taken as they are.
    """
    if connections[database()].in_atomic_block:
        return look()
    return in_group(lambda cursor: look())


def state_of(row: AttemptCounter) -> CounterState:
    """Return a row of the table of counters as a store takes it; a tier's lockout only while failures stand for it."""
    life = life_of(row)
    return CounterState(
        digest=row.digest,
        parameters=parameters_of(row.parameters),
        epoch=life.epoch,
        failures=life.failures,
        lifted=life.lifted,
        expires_at=life.expires_at,
        limit=row.limit,
        locked_until=life.locked_until if life.standing >= row.limit else 0,
        ends=tuple(life.ends),
    )


def life_of(row: AttemptCounter) -> Life:
    """Return the life of a counter as its row has it."""
    return Life(
        epoch=row.epoch,
        failures=row.failures,
        lifted=row.lifted,
        expires_at=0 if row.expires_at is None else as_ms(row.expires_at),
        locked_until=0 if row.locked_until is None or row.ends else as_ms(row.locked_until),
        ends=ends_of(row),
    )


def keep(life: Life, row: AttemptCounter) -> None:
    """Have ``row`` hold ``life``; ``row.limit`` is the limit in force."""
    row.epoch, row.failures, row.lifted = life.epoch, life.failures, life.lifted
    row.expires_at = as_datetime(life.expires_at) if life.expires_at else None
    until = life.locked_until
    if life.ends and 0 < row.limit <= life.standing:
        until = life.ends[-row.limit]
    row.locked_until = as_datetime(until) if until else None
    row.ends = ends_text(life.ends)


def ends_of(row: AttemptCounter) -> list[int]:
    """Return when each failure ends, where each does so alone; in epoch milliseconds, in order."""
    return [int(end) for end in row.ends.split(",")] if row.ends else []


def ends_text(ends: Iterable[int]) -> str:
    """Return what ``ends_of`` reads."""
    return ",".join(map(str, ends))


def standing_of(row: AttemptCounter, now: int) -> int:
    """Return the failures that count at ``now`` (epoch milliseconds)."""
    standing = max(0, row.failures - row.lifted)
    return min(standing, sum(end > now for end in ends_of(row))) if row.ends else standing


def database_name() -> str:
    """Return a short name for the database of our rows, the same in every process that uses it."""
    from axes_async.models import AttemptCounter

    options = connections[router.db_for_write(AttemptCounter)].settings_dict
    parts = [str(options.get(name, "")) for name in ("ENGINE", "HOST", "PORT", "NAME")]
    return sha256("\0".join(parts).encode()).hexdigest()[:12]
