"""The steps of a login on the rows themselves, for as long as the store is away.

Each is one short transaction that holds the cursor, so that decisions stay exact and nothing else writes meanwhile.
"""

from __future__ import annotations

import os
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import cache, wraps
from typing import Any, TypeVar, cast

from django.db import close_old_connections, connections

from axes_async.clock import as_datetime, as_ms, now_ms
from axes_async.cursor import database, held_cursor
from axes_async.errors import StoreReturned
from axes_async.events import AttemptEvent, CounterState, worth_a_row
from axes_async.heard import LOOKED_AT, Answer, Heard
from axes_async.ledger import ends_text, keep, life_of
from axes_async.life import Life
from axes_async.models import AttemptCounter, AttemptPlace, DrainCursor
from axes_async.policy import Counter
from axes_async.stores.base import OutboxStore, Outcome, Place, Store, Verdict, outcome_of
from axes_async.tasks.fold import COUNTER_FIELDS, Fold, ends_after
from axes_async.tasks.rows import new_counter, upsert

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
            try:
                return step(*args, **options)
            finally:
                close_old_connections()  # As at the end of a request, by ``CONN_MAX_AGE``.

        return _elsewhere(os.getpid()).submit(elsewhere).result()

    return cast("Step", run)


@cache
def _elsewhere(pid: int) -> ThreadPoolExecutor:
    """Return a thread of this process; a forked one has to start its own."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="axes-async-rows")


class DirectStore(Store):
    """The contract of a store, on the table of counters; events become rows at once."""

    has_outbox = False

    def __init__(self, heard: Heard | None = None, *, away: bool = True) -> None:
        """Use the database that our rows are routed to, and what this process has heard of the store before.

        If the store is not ``away``, and only did not take this step, others using it are no reason to leave the rows.
        """
        self.using = database()
        self.heard, self.away = Heard() if heard is None else heard, away

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
        with self._held():
            rows = self._rows(counters, now, event)
            lives = _lives(counters, rows, now)
            locked = [(counter, life) for counter, life in lives if life.is_locked(counter.rule, now)]
            if locked:
                repeats = self._turn_away(locked, rows, event, now=now, extend=extend)
                return outcome_of(locked, now, repeats=repeats)
            taken, is_known = self._taken(token, counters, now)
            for counter, life in lives:
                if 0 < life.limit(counter.rule, now) <= life.standing + taken[counter.digest]:
                    return Outcome(Verdict.BUSY)
            if is_known:
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
        with self._held() as cursor:
            rows = self._rows(counters, now, event)
            lives = _lives(counters, rows, now)
            for counter, life in lives:
                row = rows.get(counter.digest) or new_counter(counter, event)
                if life.is_locked(counter.rule, now):
                    if extend:
                        life.prolong(counter.rule, now)
                elif life.count(counter.rule, now, in_rows=True):
                    newly, row.blocked = True, 0
                row.limit, row.updated_at = life.limit(counter.rule, now), as_datetime(now)
                keep(life, row)
                row.save(using=self.using)
            self.release_places(token)
            _mark(cursor)
            self._write(event.seen(life.state(counter, now) for counter, life in lives))
        return outcome_of(lives, now, newly=newly)

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
        with self._held() as cursor:
            rows = self._rows([*counters, *clear], now)
            standing = {counter.digest: life.standing for counter, life in _lives([*counters, *clear], rows, now)}
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
                _mark(cursor)
            if always or cleared:
                self._write(event.seen(cleared))
        return Outcome(standing=standing if any(standing.values()) else None)

    @apart
    def release(self, token: str, counters: Sequence[Counter], *, now: int) -> None:
        """See ``Store.release``."""
        self.release_places(token)

    @apart
    def peek(self, counters: Sequence[Counter], *, now: int) -> Outcome:
        """See ``Store.peek``."""
        return outcome_of(_lives(counters, self._rows(counters, now), now), now)

    @apart
    def record(self, event: AttemptEvent) -> Outcome:
        """See ``Store.record``; a reset is applied at once."""
        with self._held() as cursor:
            Fold(self, self.using).apply([event])
            _mark(cursor)
        return Outcome()

    @apart
    def hand_back(self, store: OutboxStore) -> None:
        """Have ``store`` take over what was counted here, and every process that is still deciding here leave it."""
        with held_cursor() as cursor:
            cursor.returns += 1
            if cursor.unmerged:
                store.cool()
                cursor.unmerged = False
            cursor.save(update_fields=["returns", "unmerged"])
            now, places = now_ms(), AttemptPlace.objects.using(self.using)
            held = [Place(place.digest, place.token, as_ms(place.ends_at)) for place in places.all()]
            store.hold([place for place in held if place.end > now], now=now)
            places.all().delete()

    def get_ready(self) -> None:
        """Open this thread's connection before it is needed."""
        connections[self.using].ensure_connection()

    @apart
    def tell(self) -> None:
        """Have the rows know what this process has heard and no worker has written, before anybody asks for it."""
        with held_cursor() as cursor:
            self._tell()
            if self.away:
                self.heard.returns = cursor.returns

    def adjust(self, states: Sequence[CounterState], *, now: int, lease: int) -> None:
        """Do nothing: the rows are what the store is going to be told."""

    def states(self, counters: Sequence[Counter], *, now: int) -> list[CounterState]:
        """See ``Store.states``."""
        return [life.state(counter, now) for counter, life in _lives(counters, self._rows(counters, now), now)]

    def probe(self) -> None:
        """Do nothing: a database that is away too is the last to be asked."""

    def release_places(self, token: str) -> None:
        """Give back whatever is held under ``token``."""
        AttemptPlace.objects.using(self.using).filter(token=token).delete()

    @contextmanager
    def _held(self) -> Iterator[DrainCursor]:
        """Hold the cursor, unless the store is in use again; the first time, tell the rows what was heard last."""
        with held_cursor() as cursor:
            if self.away and self.heard.returns is None:
                self._tell()
                self.heard.returns = cursor.returns
            elif self.away and self.heard.returns != cursor.returns:
                raise StoreReturned("Other processes use the store again.")
            yield cursor

    def _tell(self) -> None:
        """Write what was heard last; open attempts, too, unless the store is there to hold their places."""
        now = now_ms()
        held = self.heard.places(now=now) if self.away else []
        AttemptPlace.objects.using(self.using).bulk_create(
            [AttemptPlace(digest=one.digest, token=one.token, ends_at=_looked_at(one.end, now)) for one in held],
            ignore_conflicts=True,
        )
        for one in held:
            self.heard.settle(one.token)
        answers = {digest: answer for digest in self.heard.recent() if (answer := self.heard.of(digest, now=now))}
        known = AttemptCounter.objects.using(self.using).filter(digest__in=answers)
        rows = {row.digest: row for row in known}
        more = []
        for digest, answer in answers.items():
            row = rows.get(digest) or new_counter(answer.state, answer.event)
            before = row.epoch, row.failures
            if answer.event is not None and before != (_joined(row, answer).epoch, row.failures):
                more.append(row)
        upsert(AttemptCounter, more, key="digest", fields=COUNTER_FIELDS, using=self.using)

    def _rows(
        self, counters: Sequence[Counter], now: int, event: AttemptEvent | None = None
    ) -> dict[str, AttemptCounter]:
        """Return the rows of ``counters``, with what the store has told this process before anybody wrote it.

        One that has expired starts a life that the store has not seen.
        """
        digests = [counter.digest for counter in counters]
        rows = {row.digest: row for row in AttemptCounter.objects.using(self.using).filter(digest__in=digests)}
        for row in rows.values():
            if row.expires_at is not None and row.expires_at <= as_datetime(now):
                keep(Life(), row)
                row.blocked = 0
        for counter in counters:
            answer = self.heard.of(counter.digest, now=now)
            if answer is not None and answer.state.epoch:
                rows[counter.digest] = _joined(
                    rows.get(counter.digest) or new_counter(counter, event or answer.event), answer
                )
        return rows

    def _taken(self, token: str, counters: Sequence[Counter], now: int) -> tuple[Tally[str], bool]:
        """Return how many places others hold on each of ``counters``, and whether any row is ``token``'s own."""
        places = AttemptPlace.objects.using(self.using).filter(digest__in=[counter.digest for counter in counters])
        taken, is_known = Tally[str](), False
        for digest, holder, end in places.values_list("digest", "token", "ends_at"):
            if holder == token:
                is_known = True
            elif end > as_datetime(now):
                taken[digest] += 1
        for counter in counters:
            answer = self.heard.of(counter.digest, now=now)
            if answer is not None:
                taken[counter.digest] += answer.open
        return taken, is_known

    def _turn_away(
        self,
        locked: list[tuple[Counter, Life]],
        rows: dict[str, AttemptCounter],
        event: AttemptEvent | None,
        *,
        now: int,
        extend: bool,
    ) -> int:
        """Record the attempt; return how many were turned away by now, or 0 where that is not worth telling."""
        for counter, life in locked if extend else ():
            life.prolong(counter.rule, now)
            keep(life, rows[counter.digest])
            rows[counter.digest].save(using=self.using)
        first = rows[locked[0][0].digest]
        first.blocked += 1
        first.save(using=self.using)
        if event is not None:
            self._write(event.seen((), repeats=first.blocked))
        return first.blocked if worth_a_row(first.blocked) else 0

    def _write(self, event: AttemptEvent) -> None:
        Fold(self, self.using, counters=False).apply([event])


def _mark(cursor: DrainCursor) -> None:
    """Have the store hear of what is counted here."""
    if not cursor.unmerged:
        cursor.unmerged = True
        cursor.save(update_fields=["unmerged"])


def _looked_at(end: int, now: int) -> datetime:
    return as_datetime(min(end, now + LOOKED_AT))


def _joined(row: AttemptCounter, answer: Answer) -> AttemptCounter:
    """Return ``row`` with the failures that the store has counted and no worker has written.

    Not where somebody has taken all of it back since: that was about these failures, too.
    """
    state = answer.state
    is_new = row.updated_at is None
    taken_back = not is_new and row.failures <= row.lifted and row.updated_at > as_datetime(answer.time)
    if row.epoch > state.epoch or taken_back:
        return row
    if row.epoch == state.epoch and row.failures >= state.failures:
        return row
    if row.epoch not in {0, state.epoch}:
        keep(Life(), row)
        is_new = True
    ends = ends_after(row, [(answer.time, state)])
    if row.epoch == 0:
        # What was counted in a row is below 0 in both, once the store has taken the row over.
        row.lifted = state.lifted if is_new else row.lifted + max(0, state.lifted)
        row.epoch, row.updated_at = state.epoch, as_datetime(answer.time)
    row.failures, row.limit = state.failures, state.limit
    row.expires_at = as_datetime(state.expires_at) if state.expires_at else None
    if state.locked_until and (row.locked_until is None or row.locked_until < as_datetime(state.locked_until)):
        row.locked_until = as_datetime(state.locked_until)
    row.ends = ends_text(ends) if state.ends else ""
    return row


def _lives(counters: Sequence[Counter], rows: dict[str, AttemptCounter], now: int) -> list[tuple[Counter, Life]]:
    """Return the life of each counter as its row has it; none of what has ended by ``now``."""
    lives = []
    for counter in counters:
        row = rows.get(counter.digest)
        life = Life() if row is None else life_of(row)
        life.settle(counter.rule, now)
        if row is not None and not life.standing:
            row.blocked = 0
        lives.append((counter, life))
    return lives
