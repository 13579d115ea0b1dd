"""The steps of a login on the rows themselves, for as long as the store is away.

Each is one short transaction that holds the cursor, so that decisions stay exact and nothing else writes meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from typing import Any, TypeVar, cast

from django.db import close_old_connections, connections
from django.db.models import Count

from axes_async.clock import as_datetime, as_ms
from axes_async.cursor import database, held_cursor
from axes_async.events import AttemptEvent, CounterState, parameter_bits
from axes_async.ledger import state_of
from axes_async.models import AttemptCounter, AttemptPlace
from axes_async.policy import Counter
from axes_async.stores.base import PERMANENT, Outcome, Store, Verdict
from axes_async.tasks.fold import Fold
from axes_async.tasks.rows import keys_of

Step = TypeVar("Step", bound=Callable[..., Any])


def apart(step: Step) -> Step:
    """Have ``step`` on a connection of its own where the caller is in a transaction: that may be rolled back.

    A failure must be counted also if the request that made it comes to nothing (``ATOMIC_REQUESTS``). The transaction
    that Django's ``TestCase`` wraps around a test is none of the caller's.
    """

    @wraps(step)
    def run(*args: Any, **options: Any) -> Any:
        blocks = connections[database()].atomic_blocks
        if all(getattr(block, "_from_testcase", False) for block in blocks):
            return step(*args, **options)

        def elsewhere() -> Any:
            close_old_connections()
            return step(*args, **options)

        return _elsewhere(os.getpid()).submit(elsewhere).result()

    return cast("Step", run)


@cache
def _elsewhere(pid: int) -> ThreadPoolExecutor:
    """Return a thread of this process; a forked one has to start its own."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="axes-async-rows")


class DirectStore(Store):
    """The contract of a store, on the table of counters; events become rows at once."""

    has_outbox = False

    def __init__(self) -> None:
        """Use the database that our rows are routed to."""
        self.using = database()

    @apart
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
        """See ``Store.reserve``."""
        with held_cursor():
            rows = self._rows(counters, now)
            locked = [(counter, rows[counter.digest]) for counter in counters if _is_locked(counter, rows)]
            if locked:
                self._turn_away(locked, event, now=now, extend=extend)
                return Outcome(Verdict.LOCKED, _locked_until(locked))
            taken = self._taken(token, counters, now)
            for counter in counters:
                standing = _standing(rows.get(counter.digest))
                if 0 < counter.rule.limit <= standing + taken.get(counter.digest, 0):
                    return Outcome(Verdict.BUSY)
            self.release_places(token)
            if lease:
                end = as_datetime(now + lease)
                places = [AttemptPlace(digest=counter.digest, token=token, ends_at=end) for counter in counters]
                AttemptPlace.objects.using(self.using).bulk_create(places)
        return Outcome()

    @apart
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
        """See ``Store.fail``."""
        newly = False
        with held_cursor() as cursor:
            rows = self._rows(counters, now)
            for counter in counters:
                row = rows.get(counter.digest) or self._new_row(counter, event)
                rows[counter.digest] = row
                if not _is_locked(counter, rows):
                    row.lifted -= 1
                    row.limit = counter.rule.limit
                    row.expires_at = as_datetime(now + counter.rule.window_ms) if counter.rule.window_ms else None
                    newly = newly or _is_locked(counter, rows)
                elif extend and counter.rule.window_ms:
                    row.expires_at = as_datetime(now + counter.rule.window_ms)
                row.updated_at = as_datetime(now)
                row.save(using=self.using)
            self.release_places(token)
            cursor.unmerged = True
            cursor.save(update_fields=["unmerged"])
            counted = [(counter, rows[counter.digest]) for counter in counters]
            self._write(event.seen(state_of(row) for _, row in counted))
            until = _locked_until([(counter, row) for counter, row in counted if _is_locked(counter, rows)])
        return Outcome(Verdict.LOCKED if until else Verdict.ALLOWED, until, newly)

    @apart
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
        """See ``Store.succeed``."""
        with held_cursor() as cursor:
            rows = self._rows(clear, now)
            cleared = []
            for counter in clear:
                row = rows.get(counter.digest)
                if row is not None and _standing(row) and not _is_locked(counter, rows):
                    row.lifted, row.updated_at = row.failures, as_datetime(now)
                    row.save(using=self.using)
                    cleared.append(state_of(row))
            self.release_places(token)
            if cleared:
                cursor.unmerged = True
                cursor.save(update_fields=["unmerged"])
            if always or cleared:
                self._write(event.seen(cleared))
        return Outcome()

    @apart
    def release(self, token: str, counters: Sequence[Counter], *, now: int) -> None:
        """See ``Store.release``."""
        self.release_places(token)

    @apart
    def peek(self, counters: Sequence[Counter], *, now: int) -> Outcome:
        """See ``Store.peek``."""
        rows = self._rows(counters, now)
        until = _locked_until([(c, rows[c.digest]) for c in counters if _is_locked(c, rows)])
        return Outcome(Verdict.LOCKED if until else Verdict.ALLOWED, until)

    @apart
    def record(self, event: AttemptEvent) -> Outcome:
        """See ``Store.record``; a reset is applied at once."""
        with held_cursor() as cursor:
            Fold(self, self.using).apply([event])
            cursor.unmerged = True
            cursor.save(update_fields=["unmerged"])
        return Outcome()

    def adjust(self, states: Sequence[CounterState], *, now: int, lease: int) -> None:
        """Do nothing: the rows are what the store is going to be told."""

    def states(self, counters: Sequence[Counter], *, now: int) -> list[CounterState]:
        """See ``Store.states``."""
        rows = self._rows(counters, now)
        return [state_of(rows.get(counter.digest) or self._new_row(counter, None)) for counter in counters]

    def probe(self) -> None:
        """Do nothing: a database that is away too is the last to be asked."""

    def release_places(self, token: str) -> None:
        """Give back whatever is held under ``token``."""
        AttemptPlace.objects.using(self.using).filter(token=token).delete()

    def _rows(self, counters: Sequence[Counter], now: int) -> dict[str, AttemptCounter]:
        """Return the rows of ``counters``; one that has expired starts a life that the store has not seen."""
        digests = [counter.digest for counter in counters]
        rows = {row.digest: row for row in AttemptCounter.objects.using(self.using).filter(digest__in=digests)}
        for row in rows.values():
            if row.expires_at is not None and row.expires_at <= as_datetime(now):
                row.epoch = row.failures = row.lifted = row.blocked = 0
        return rows

    def _taken(self, token: str, counters: Sequence[Counter], now: int) -> dict[str, int]:
        """Return how many places others hold on each of ``counters``."""
        places = AttemptPlace.objects.using(self.using).filter(
            digest__in=[counter.digest for counter in counters], ends_at__gt=as_datetime(now)
        )
        return dict(places.exclude(token=token).values_list("digest").annotate(Count("id")))

    def _turn_away(
        self,
        locked: list[tuple[Counter, AttemptCounter]],
        event: AttemptEvent | None,
        *,
        now: int,
        extend: bool,
    ) -> None:
        for counter, row in locked:
            if extend and counter.rule.window_ms:
                row.expires_at = as_datetime(now + counter.rule.window_ms)
                row.save(using=self.using, update_fields=["expires_at"])
        if event is not None:
            first = locked[0][1]
            first.blocked += 1
            first.save(using=self.using, update_fields=["blocked"])
            self._write(event.seen((), repeats=first.blocked))

    def _new_row(self, counter: Counter, event: AttemptEvent | None) -> AttemptCounter:
        row = AttemptCounter(digest=counter.digest, epoch=0, failures=0, lifted=0, limit=counter.rule.limit)
        row.parameters = parameter_bits(counter.rule.parameters)
        if event is not None:
            keys = keys_of(event)
            for name in counter.rule.parameters:
                setattr(row, f"{name}_key", keys[name])
            row.username = event.username if "username" in counter.rule.parameters else None
            row.ip_address = event.ip_address if "ip_address" in counter.rule.parameters else None
        return row

    def _write(self, event: AttemptEvent) -> None:
        Fold(self, self.using, counters=False).apply([event])


def _standing(row: AttemptCounter | None) -> int:
    return 0 if row is None else max(0, row.failures - row.lifted)


def _is_locked(counter: Counter, rows: dict[str, AttemptCounter]) -> bool:
    return 0 < counter.rule.limit <= _standing(rows.get(counter.digest))


def _locked_until(locked: Sequence[tuple[Counter, AttemptCounter]]) -> int:
    ends = [0 if row.expires_at is None else as_ms(row.expires_at) for _, row in locked]
    return PERMANENT if 0 in ends else max(ends, default=0)
