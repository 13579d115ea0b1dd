"""The store contract on counter rows: the store of a site without Redis, and what decides while the store cannot.

A step is one transaction. It locks the rows of its counters in the order of their digests and nothing else for itself,
so strangers do not wait for each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar
from uuid import UUID

from django.db import Error, connections

from axes_async.counters.events import AttemptEvent, Kind
from axes_async.counters.rules import Counter
from axes_async.errors import StoreReturned, StoreUnavailable
from axes_async.models import AccessFailureLog, AccessLog, AttemptCounter, OutboxEvent, StoreState, database
from axes_async.stores.autonomous import autonomous
from axes_async.stores.contract import OutboxStore
from axes_async.stores.counting import CountingStore, Engine, KeptCounter
from axes_async.stores.database import mode
from axes_async.stores.database.known import known_state
from axes_async.stores.database.retries import Again, Waits, persist
from axes_async.stores.database.rows import (
    NAME_FIELDS,
    STATE_FIELDS,
    keep_reservations,
    keep_state,
    name_client,
    new_row,
    reservations_of,
    state_of,
    told_at_of,
)
from axes_async.stores.results import StepResult
from axes_async.stores.shared import note_shared
from axes_async.stores.step import Known, Step, StepKind

T = TypeVar("T")
Rows = dict[str, AttemptCounter]

NUDGE_EVERY = 1.0
"""Seconds between two results of this process that ask for a drain."""


class DatabaseStore(CountingStore):
    """The contract on the rows of the database.

    :param replaces: the store whose ``generation`` this process knows, which decides unless it cannot.
    :param standalone: no other store ever decides.
    :param nudge_always: every event asks for a drain.

    Without ``replaces``, and not ``standalone``, it stands in for a cache store, which has no generations.
    """

    def __init__(
        self, *, replaces: OutboxStore | None = None, standalone: bool = False, nudge_always: bool = False
    ) -> None:
        self.replaces, self.standalone, self.nudge_always = replaces, standalone, nudge_always
        self._nudged_at = float("-inf")

    def do(self, step: Step) -> StepResult:
        if step.kind is StepKind.PEEK:
            return self.read(step.counters).do(step)
        result = self._run(partial(self._record if step.kind is StepKind.RECORD else self._do, step))
        note_shared(step, result, database())
        return result

    def read(self, counters: Sequence[Counter]) -> Engine:
        def work(using: str, waits: Waits) -> Engine:
            with mode.step_transaction(using, waits):
                with waits.of_state():
                    state, clock = mode.state_and_clock(using)
                if self._is_behind(state):
                    raise StoreReturned(state.generation)
                rows = AttemptCounter.objects.using(using).filter(digest__in=[counter.digest for counter in counters])
                return self._engine(counters, {row.digest: row for row in rows}, state, clock.now())

        return self._run(work)

    def _record(self, step: Step, using: str, waits: Waits) -> StepResult:
        with mode.step_transaction(using, waits):
            event = step.event
            if event is not None and not event.at:
                event = event.applied((), at=mode.database_now(using), repeats=event.repeats)
            return self._deliver(StepResult(event=event), using, twice=True)

    def _do(self, step: Step, using: str, waits: Waits) -> StepResult:
        settles = step.kind in {StepKind.FAIL, StepKind.SUCCEED}
        with mode.step_transaction(using, waits):
            with waits.of_state():
                state, clock = mode.shared_state_and_clock(using)
            if self._is_behind(state, unsure=settles and step.again) and not (
                settles and was_applied(using, step.event)
            ):
                raise StoreReturned(state.generation)
            if step.kind is StepKind.RESERVE and (step.lease or step.event):
                self._decide(using, state)  # Before any counter is held: others wait to say the same.
            rows = _lock(using, step, clock)
            # Asked for when the rows are held: a drain that wrote this event held them too.
            applied = settles and was_applied(using, step.event)
            engine = self._engine(step.all_counters, rows, state, clock.now(), applied=applied, known=step.known)
            # Other reservations of the attempt may be in the store: that none is left here tells nothing.
            result = engine.do(step if self.standalone else replace(step, again=False))
            # Giving back what was not reserved here is no reason to change who decides.
            if not applied and (engine.touched or step.event is not None):
                self._decide(using, state)
            self._save(using, engine, rows, state, step.event)
            return self._deliver(result, using)

    def _is_behind(self, state: StoreState, *, unsure: bool = False) -> bool:
        """Return whether the store decides again, and this process does not know that yet.

        A step that the store may have done goes there again only after a sync. That has drained the store, so "not
        applied" means "not done" then. A push begins a generation too, and drains nothing.
        """
        if self.replaces is None or state.mode != StoreState.STORE:
            return False
        if unsure:
            return state.synced > max(self.replaces.generation, self.replaces.sent_in)
        return state.generation > self.replaces.generation

    def _decide(self, using: str, state: StoreState) -> None:
        """Have the database decide, if it does not yet."""
        if self.replaces is not None and state.mode == StoreState.STORE:
            raise Again(partial(mode.let_database_decide, using, generation=state.generation))

    def _engine(
        self,
        counters: Sequence[Counter],
        rows: Rows,
        state: StoreState,
        now: int,
        *,
        applied: bool = False,
        known: Known | None = None,
    ) -> Engine:
        kept = {}
        for counter in counters:
            row = rows.get(counter.digest)
            if row is not None and row.generation <= state.void_generation:
                row.failures = row.blocked = 0
            kept[counter.digest] = KeptCounter() if row is None else _kept_of(row, now)
        engine = Engine(counters, kept, now, applied=applied)
        if known:
            for counter in counters:
                one = kept[counter.digest]
                one.known = known_state(counter, one.state, known, rows.get(counter.digest), state, now)
        return engine

    def _save(self, using: str, engine: Engine, rows: Rows, state: StoreState, event: AttemptEvent | None) -> None:
        for digest in sorted(engine.touched & rows.keys()):
            row, kept = rows[digest], engine.kept[digest]
            fields = ["reservations", "blocked"]
            keep_reservations(row, kept.reservations, told_at=kept.told_at)
            row.blocked = kept.blocked
            if digest in engine.changed:
                keep_state(row, kept.state, at=engine.now, limit=engine.changed[digest], generation=state.generation)
                fields += STATE_FIELDS
                # A reservation for several names has named the row by the first of them.
                is_named = any(getattr(row, name) for name in NAME_FIELDS)
                if event is not None and (event.kind is Kind.FAILED or not is_named):
                    name_client(row, event)
                    fields += NAME_FIELDS
            if not self.standalone and not row.dirty:
                row.dirty = True
                fields.append("dirty")
            row.save(using=using, update_fields=fields)

    def _deliver(self, result: StepResult, using: str, *, twice: bool = False) -> StepResult:
        """Append the event to the outbox table.

        :param twice: the event may be there already.
        """
        if (event := result.event) is None:
            return result
        row = OutboxEvent(event_id=UUID(event.id), wire=event.wire())
        if twice:
            OutboxEvent.objects.using(using).bulk_create([row], ignore_conflicts=True)
        else:
            row.save(using=using, force_insert=True)
        return replace(result, event=None, nudge=self._is_nudge_due())

    def _is_nudge_due(self) -> bool:
        now = time.monotonic()
        if not self.nudge_always and now - self._nudged_at < NUDGE_EVERY:
            return False
        self._nudged_at = now
        return True

    def _run(self, work: Callable[[str, Waits], T]) -> T:
        """Do ``work`` apart from a transaction of the caller; raises ``StoreUnavailable`` for every database error."""
        using = database()
        try:
            return autonomous(partial(persist, work, using), using=using)
        except Error as error:
            raise StoreUnavailable(f"The database: {type(error).__name__}: {error}") from error


def _lock(using: str, step: Step, clock: mode.DatabaseClock) -> Rows:
    """Lock the rows of the step's counters in the order of their digests, and make those that it may write first."""
    digests = {counter.digest for counter in step.all_counters}
    query = AttemptCounter.objects.using(using).select_for_update().filter(digest__in=digests).order_by("digest")
    rows = {row.digest: row for row in query}
    creates = step.kind is StepKind.FAIL or (step.kind is StepKind.RESERVE and step.lease > 0)
    missing = [counter for counter in step.counters if creates and counter.digest not in rows]
    if not missing:
        return rows
    make = partial(_make, using, missing, step.event, clock.now())
    # With some held already, the others would be out of order. On MySQL, an insert that finds a row there locks it for
    # reading, and two that have done so keep each other from writing.
    if rows or connections[using].vendor == "mysql":
        raise Again(partial(_apart, make, using))
    make()
    return {row.digest: row for row in query.all()}


def _apart(make: Callable[[], None], using: str, waits: Waits) -> None:
    with mode.step_transaction(using, waits):
        make()


def _make(using: str, counters: Sequence[Counter], event: AttemptEvent | None, now: int) -> None:
    """Make the rows of ``counters``, unless somebody else does; ``event`` tells whose they are."""
    rows = []
    for counter in sorted(counters, key=lambda counter: counter.digest):
        row = new_row(counter.digest, counter.rule.parameters, at=now)
        if event is not None:
            name_client(row, event)
        rows.append(row)
    AttemptCounter.objects.using(using).bulk_create(rows, ignore_conflicts=True)


def was_applied(using: str, event: AttemptEvent | None) -> bool:
    """Return whether ``event`` has a row: in the outbox table, or in its log."""
    if event is None:
        return False
    log = AccessFailureLog if event.kind is Kind.FAILED else AccessLog
    ids = [model.objects.using(using).filter(event_id=UUID(event.id)).order_by() for model in (OutboxEvent, log)]
    first, second = (one.values_list("event_id") for one in ids)
    return bool(first.union(second, all=True))


def _kept_of(row: AttemptCounter, now: int) -> KeptCounter:
    return KeptCounter(
        state=state_of(row), reservations=reservations_of(row, now), blocked=row.blocked, told_at=told_at_of(row)
    )
