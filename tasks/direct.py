"""The steps of a login on the rows themselves, for as long as the store is away.

Each holds the cursor, so that decisions stay exact and nothing else writes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

from axes_async.clock import as_datetime, as_ms, now_ms
from axes_async.counters.events import AttemptEvent, CounterState, worth_a_row
from axes_async.counters.rules import Counter
from axes_async.counters.state import Life
from axes_async.cursor import database, held_cursor
from axes_async.errors import StoreReturned
from axes_async.group_commit import in_group
from axes_async.heard import Heard
from axes_async.ledger import keep
from axes_async.models import AttemptCounter, AttemptPlace, DrainCursor
from axes_async.stores.autonomous import apart
from axes_async.stores.contract import OutboxStore, Place, Store
from axes_async.stores.results import Outcome, Verdict, outcome_of
from axes_async.tasks.projection.projector import Fold
from axes_async.tasks.projection.rows import new_counter
from axes_async.tasks.standing import lives_of, places_taken, rows_of, tell

P = ParamSpec("P")
T = TypeVar("T")


def in_turn(step: Callable[Concatenate[DirectStore, DrainCursor, P], T]) -> Callable[Concatenate[DirectStore, P], T]:
    """Have ``step`` done in turn with those of other threads, and be given the cursor that is held meanwhile."""

    @wraps(step)
    def run(self: DirectStore, *args: P.args, **options: P.kwargs) -> T:
        def with_cursor(cursor: DrainCursor) -> T:
            return step(self, cursor, *args, **options)

        return self._while_away(with_cursor) if self.away else in_group(with_cursor)

    return cast("Callable[Concatenate[DirectStore, P], T]", run)


class DirectStore(Store):
    """The contract of a store, on the table of counters; events become rows at once."""

    has_outbox = False

    def __init__(self, heard: Heard | None = None, *, away: bool = True) -> None:
        """Use the database that our rows are routed to, and what this process has heard of the store before.

        If the store is not ``away``, and only did not take this step, others using it are no reason to leave the rows.
        """
        self.using = database()
        self.heard, self.away = Heard() if heard is None else heard, away

    @in_turn
    def reserve(
        self,
        cursor: DrainCursor,
        token: str,
        counters: Sequence[Counter],
        event: AttemptEvent | None,
        *,
        now: int,
        lease: int,
        extend: bool,
    ) -> Outcome:
        """See ``Store.reserve``."""
        rows = self._rows(counters, now, event)
        lives = lives_of(counters, rows, now)
        locked = [(counter, life) for counter, life in lives if life.is_locked(counter.rule, now)]
        if locked:
            repeats = self._turn_away(locked, rows, event, now=now, extend=extend)
            return outcome_of(locked, now, repeats=repeats)
        taken, is_known = places_taken(token, counters, self.heard, self.using, now=now)
        for counter, life in lives:
            if 0 < life.limit(counter.rule, now) <= life.standing + taken[counter.digest]:
                return Outcome(Verdict.BUSY)
        if is_known:
            self._give_back(token)
        if lease:
            end = as_datetime(now + lease)
            places = [AttemptPlace(digest=counter.digest, token=token, ends_at=end) for counter in counters]
            AttemptPlace.objects.using(self.using).bulk_create(places)
        return Outcome()

    @in_turn
    def fail(
        self,
        cursor: DrainCursor,
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
        rows = self._rows(counters, now, event)
        lives = lives_of(counters, rows, now)
        for counter, life in lives:
            row = rows.get(counter.digest) or new_counter(counter, event)
            if life.is_locked(counter.rule, now):
                if extend:
                    life.prolong(counter.rule, now)
            elif life.count(counter.rule, now, in_rows=True):
                newly, row.blocked = True, 0
            row.limit, row.updated_at = life.limit(counter.rule, now), as_datetime(now)
            keep(life, row)
            row.save(using=self.using, force_insert=row._state.adding)
        self._give_back(token)
        _mark(cursor)
        self._write(event.seen(life.state(counter, now) for counter, life in lives))
        return outcome_of(lives, now, newly=newly)

    @in_turn
    def succeed(
        self,
        cursor: DrainCursor,
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
        rows = self._rows([*counters, *clear], now)
        standing = {counter.digest: life.standing for counter, life in lives_of([*counters, *clear], rows, now)}
        cleared = []
        for counter, life in lives_of(clear, rows, now):
            if life.standing and not life.is_locked(counter.rule, now):
                life.lifted, life.locked_until, life.ends = life.failures, 0, []
                row = rows[counter.digest]
                keep(life, row)
                row.updated_at = as_datetime(now)
                row.save(using=self.using)
                cleared.append(life.state(counter, now))
        self._give_back(token)
        if cleared:
            _mark(cursor)
        if always or cleared:
            self._write(event.seen(cleared))
        return Outcome(standing=standing if any(standing.values()) else None)

    @apart
    def release(self, token: str, counters: Sequence[Counter], *, now: int) -> None:
        """See ``Store.release``."""
        self._give_back(token)

    @apart
    def peek(self, counters: Sequence[Counter], *, now: int) -> Outcome:
        """See ``Store.peek``."""
        return outcome_of(lives_of(counters, self._rows(counters, now), now), now)

    @in_turn
    def record(self, cursor: DrainCursor, event: AttemptEvent) -> Outcome:
        """See ``Store.record``; a reset is applied at once."""
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

    def tell(self) -> None:
        """Have the rows know what this process has heard and no worker has written, before anybody asks for it."""
        if self.away:
            self._while_away(lambda cursor: None, tells=True)
        else:
            in_group(lambda cursor: tell(self.heard, (), self.using, now=now_ms()))

    def adjust(self, states: Sequence[CounterState], *, now: int, lease: int) -> None:
        """Do nothing: the rows are what the store is going to be told."""

    def states(self, counters: Sequence[Counter], *, now: int) -> list[CounterState]:
        """See ``Store.states``."""
        return [life.state(counter, now) for counter, life in lives_of(counters, self._rows(counters, now), now)]

    def probe(self) -> None:
        """Do nothing: a database that is away too is the last to be asked."""

    def _while_away(self, step: Callable[[DrainCursor], T], *, tells: bool = False) -> T:
        """Do ``step`` in turn with others, unless the store is in use again; the first one tells what was heard.

        Open attempts are told, too: the store is not there to hold their places.
        """
        heard, lost_at = self.heard, self.heard.lost_at

        def checked(cursor: DrainCursor) -> tuple[T, int, list[Place]]:
            places: list[Place] = []
            if tells or (heard.returns is None and heard.telling is not cursor):
                now = now_ms()
                places = heard.places(now=now)
                tell(heard, places, self.using, now=now)
                heard.telling = cursor
            elif heard.returns not in {None, cursor.returns}:
                raise StoreReturned("Other processes use the store again.")
            return step(cursor), cursor.returns, places

        result, returns, places = in_group(checked)
        for place in places:
            heard.settle(place.token)
        if heard.lost_at == lost_at:
            heard.returns = returns
        return result

    def _rows(
        self, counters: Sequence[Counter], now: int, event: AttemptEvent | None = None
    ) -> dict[str, AttemptCounter]:
        return rows_of(counters, self.heard, self.using, now=now, event=event)

    def _give_back(self, token: str) -> None:
        AttemptPlace.objects.using(self.using).filter(token=token).delete()

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
