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

from axes_async.clock import as_datetime
from axes_async.cursor import database, held_cursor
from axes_async.events import AttemptEvent, CounterState, parameter_bits
from axes_async.ledger import keep, life_of
from axes_async.life import Life
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
            rows = self._rows(counters)
            lives = _lives(counters, rows, now)
            locked = [(counter, life) for counter, life in lives if life.is_locked(counter.rule, now)]
            if locked:
                self._turn_away(locked, rows, event, now=now, extend=extend)
                return Outcome(Verdict.LOCKED, _locked_until(locked, now))
            taken = self._taken(token, counters, now)
            for counter, life in lives:
                if 0 < life.limit(counter.rule, now) <= life.standing + taken.get(counter.digest, 0):
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
            rows = self._rows(counters)
            lives = _lives(counters, rows, now)
            for counter, life in lives:
                row = rows.get(counter.digest) or self._new_row(counter, event)
                if life.is_locked(counter.rule, now):
                    if extend:
                        life.prolong(counter.rule, now)
                elif life.count(counter.rule, now, in_rows=True):
                    newly, row.blocked = True, 0
                keep(life, row)
                row.limit, row.updated_at = life.limit(counter.rule, now), as_datetime(now)
                row.save(using=self.using)
            self.release_places(token)
            cursor.unmerged = True
            cursor.save(update_fields=["unmerged"])
            self._write(event.seen(life.state(counter, now) for counter, life in lives))
            until = _locked_until(lives, now)
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
            rows = self._rows(clear)
            cleared = []
            for counter, life in _lives(clear, rows, now):
                if life.standing and not life.is_locked(counter.rule, now):
                    life.lifted, life.locked_until, life.ends = life.failures, 0, []
                    row = rows[counter.digest]
                    keep(life, row)
                    row.updated_at = as_datetime(now)
                    row.save(using=self.using)
                    cleared.append(life.state(counter, now))
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
        until = _locked_until(_lives(counters, self._rows(counters), now), now)
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
        return [life.state(counter, now) for counter, life in _lives(counters, self._rows(counters), now)]

    def release_places(self, token: str) -> None:
        """Give back whatever is held under ``token``."""
        AttemptPlace.objects.using(self.using).filter(token=token).delete()

    def _rows(self, counters: Sequence[Counter]) -> dict[str, AttemptCounter]:
        digests = [counter.digest for counter in counters]
        return {row.digest: row for row in AttemptCounter.objects.using(self.using).filter(digest__in=digests)}

    def _taken(self, token: str, counters: Sequence[Counter], now: int) -> dict[str, int]:
        """Return how many places others hold on each of ``counters``."""
        places = AttemptPlace.objects.using(self.using).filter(
            digest__in=[counter.digest for counter in counters], ends_at__gt=as_datetime(now)
        )
        return dict(places.exclude(token=token).values_list("digest").annotate(Count("id")))

    def _turn_away(
        self,
        locked: list[tuple[Counter, Life]],
        rows: dict[str, AttemptCounter],
        event: AttemptEvent | None,
        *,
        now: int,
        extend: bool,
    ) -> None:
        for counter, life in locked if extend else ():
            life.prolong(counter.rule, now)
            keep(life, rows[counter.digest])
            rows[counter.digest].save(using=self.using, update_fields=["expires_at", "locked_until", "ends"])
        if event is not None:
            first = rows[locked[0][0].digest]
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


def _lives(counters: Sequence[Counter], rows: dict[str, AttemptCounter], now: int) -> list[tuple[Counter, Life]]:
    """Return the life of each counter; one that has expired starts another, which the store has not seen."""
    lives = []
    for counter in counters:
        row = rows.get(counter.digest)
        life = Life() if row is None else life_of(row)
        life.settle(counter.rule, now)
        if row is not None and not life.standing:
            row.blocked = 0
        lives.append((counter, life))
    return lives


def _locked_until(lives: Sequence[tuple[Counter, Life]], now: int) -> int:
    rules = [(counter.rule, life) for counter, life in lives]
    ends = [life.lock_ends(rule) for rule, life in rules if life.is_locked(rule, now)]
    return PERMANENT if 0 in ends else max(ends, default=0)
