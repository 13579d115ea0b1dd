"""What the rows say of counters, for a store that has lost them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

from django.db import DatabaseError, InterfaceError, connections, router
from django.db.models import Q, QuerySet

from axes_async.clock import as_datetime, as_ms, now_ms
from axes_async.cursor import database, held_cursor
from axes_async.errors import StoreCold
from axes_async.events import CounterState, parameters_of

if TYPE_CHECKING:
    from axes_async.models import AttemptCounter

PORTION = 100
"""Counters that a rebuild takes over in one step of the store."""


class Ledger:
    """``stores.base.Rows`` on the table of counters."""

    def states(self, digests: Sequence[str]) -> Mapping[str, CounterState]:
        """Return the live counters among ``digests``; raises ``StoreCold`` if none can be read."""
        try:
            with _after_drains():
                return {row.digest: state_of(row) for row in self._live().filter(digest__in=digests)}
        except (DatabaseError, InterfaceError) as error:
            raise StoreCold(f"Neither the store nor the database knows the counters: {error}") from error

    def is_empty(self) -> bool:
        """Return whether no counter is live; raises ``StoreCold`` if that cannot be read."""
        try:
            with _after_drains():
                return not self._live().exists()
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


@contextmanager
def _after_drains() -> Iterator[None]:
    """Look only when no drain is at work: it may hold events of a store that has been flushed since it read them.

    In a caller's transaction the cursor would stay held to its end, so there the rows are taken as they are.
    """
    if connections[database()].in_atomic_block:
        yield
    else:
        with held_cursor():
            yield


def state_of(row: AttemptCounter) -> CounterState:
    """Return a row of the table of counters as a store takes it."""
    return CounterState(
        digest=row.digest,
        parameters=parameters_of(row.parameters),
        epoch=row.epoch,
        failures=row.failures,
        lifted=row.lifted,
        expires_at=0 if row.expires_at is None else as_ms(row.expires_at),
        limit=row.limit,
    )


def database_name() -> str:
    """Return a short name for the database of our rows, the same in every process that uses it."""
    from axes_async.models import AttemptCounter

    options = connections[router.db_for_write(AttemptCounter)].settings_dict
    parts = [str(options.get(name, "")) for name in ("ENGINE", "HOST", "PORT", "NAME")]
    return sha256("\0".join(parts).encode()).hexdigest()[:12]
