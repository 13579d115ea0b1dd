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
from axes_async.stores.counting import CountingStore, KeptCounter, Step
from axes_async.stores.database import mode
from axes_async.stores.database.known import NOTHING, Known, known_state
from axes_async.stores.database.retries import Again, persist
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

    has_outbox = False

    def __init__(
        self, *, replaces: OutboxStore | None = None, standalone: bool = False, nudge_always: bool = False
    ) -> None:
        self.replaces, self.standalone, self.nudge_always = replaces, standalone, nudge_always
        self.has_all_reservations = standalone
        self._nudged_at = float("-inf")

    def reserve(
        self,
        token: str,
        counters: Sequence[Counter],
        event: AttemptEvent | None,
        *,
        lease: int,
        extend: bool,
        known: Known = NOTHING,
    ) -> StepResult:
        """Do ``Store.reserve``.

        :param known: failures that the caller knows of, by digest, and since when (epoch milliseconds). The larger of
            row and known counts, unless a reset came later.
        """

        def action(step: Step) -> StepResult:
            return step.reserve(token, counters, event, lease=lease, extend=extend)

        return self._step(counters, action, create=counters if lease else (), event=event, known=known)

    def record(self, event: AttemptEvent) -> StepResult:
        def work(using: str) -> StepResult:
            with mode.step_transaction(using):
                done = event if event.at else event.applied((), at=mode.database_now(using), repeats=event.repeats)
                return self._deliver(StepResult(event=done), using, twice=True)

        return self._run(work)

    def probe(self) -> None:
        def work(using: str) -> None:
            with mode.step_transaction(using):
                mode.shared_state(using)

        self._run(work)

    def _step(
        self,
        counters: Sequence[Counter],
        action: Callable[[Step], StepResult],
        *,
        create: Sequence[Counter] = (),
        event: AttemptEvent | None = None,
        settles: bool = False,
        unsure: bool = False,
        known: Known = NOTHING,
    ) -> StepResult:
        def work(using: str) -> StepResult:
            with mode.step_transaction(using):
                state, clock = mode.shared_state_and_clock(using)
                behind = self._is_behind(state, unsure=unsure)
                if behind and not (event is not None and settles and was_applied(using, event)):
                    raise StoreReturned(state.generation)
                rows = _lock(using, counters, create, event, clock)
                # Asked for when the rows are held: a drain that wrote this event held them too.
                applied = event is not None and settles and was_applied(using, event)
                step = self._begin(counters, rows, state, clock.now(), applied=applied, known=known)
                result = action(step)
                # Giving back what was not reserved here is no reason to change who decides.
                if not applied and (step.touched or event is not None):
                    self._decide(using, state)
                self._save(using, step, rows, state, event)
                return self._deliver(result, using)

        return self._run(work)

    def _read(self, counters: Sequence[Counter]) -> Step:
        def work(using: str) -> Step:
            state, clock = mode.state_and_clock(using)
            if self._is_behind(state):
                raise StoreReturned(state.generation)
            rows = AttemptCounter.objects.using(using).filter(digest__in=[counter.digest for counter in counters])
            found = {row.digest: row for row in rows}
            return self._begin(counters, found, state, clock.now())

        return self._run(work)

    def _is_behind(self, state: StoreState, *, unsure: bool = False) -> bool:
        """Return whether the store decides again, and this process does not know that yet.

        A step that the store may have done goes there again only after a sync. That has drained the store, so "not
        applied" means "not done" then. A push begins a generation too, and drains nothing.
        """
        if self.replaces is None or not self._store_decides(state):
            return False
        if unsure:
            return state.synced > max(self.replaces.generation, self.replaces.sent_in)
        return state.generation > self.replaces.generation

    def _decide(self, using: str, state: StoreState) -> None:
        """Have the database decide, if it does not yet."""
        if self._store_decides(state) and self.replaces is not None:
            raise Again(partial(mode.let_database_decide, using, generation=state.generation))

    def _store_decides(self, state: StoreState) -> bool:
        return self.replaces is not None and not self.standalone and state.mode == StoreState.STORE

    def _begin(
        self,
        counters: Sequence[Counter],
        rows: Rows,
        state: StoreState,
        now: int,
        *,
        applied: bool = False,
        known: Known = NOTHING,
    ) -> Step:
        kept = {}
        for counter in counters:
            row = rows.get(counter.digest)
            if row is not None and row.generation <= state.void_generation:
                row.failures = row.blocked = 0
            kept[counter.digest] = KeptCounter() if row is None else _kept_of(row, now)
        step = Step(counters, kept, now, applied=applied)
        for counter in counters if known else ():
            one = kept[counter.digest]
            one.known = known_state(counter, one.state, known, rows.get(counter.digest), state, now)
        return step

    def _save(self, using: str, step: Step, rows: Rows, state: StoreState, event: AttemptEvent | None) -> None:
        for digest in sorted(step.touched & rows.keys()):
            row, kept = rows[digest], step.kept[digest]
            fields = ["reservations", "blocked"]
            keep_reservations(row, kept.reservations, told_at=kept.told_at)
            row.blocked = kept.blocked
            if digest in step.changed:
                keep_state(row, kept.state, at=step.now, limit=step.changed[digest], generation=state.generation)
                fields += STATE_FIELDS
                if event is not None and not any(getattr(row, name) for name in NAME_FIELDS):
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

    def _run(self, work: Callable[[str], T]) -> T:
        """Do ``work`` apart from a transaction of the caller; raises ``StoreUnavailable`` for every database error."""
        using = database()
        try:
            return autonomous(partial(persist, work, using), using=using)
        except Error as error:
            raise StoreUnavailable(f"The database: {type(error).__name__}: {error}") from error


def _lock(
    using: str,
    counters: Sequence[Counter],
    create: Sequence[Counter],
    event: AttemptEvent | None,
    clock: mode.DatabaseClock,
) -> Rows:
    """Lock the rows of ``counters`` in the order of their digests, and make those of ``create`` that are missing."""
    digests = {counter.digest for counter in counters}
    query = AttemptCounter.objects.using(using).select_for_update().filter(digest__in=digests).order_by("digest")
    rows = {row.digest: row for row in query}
    missing = [counter for counter in create if counter.digest not in rows]
    if not missing:
        return rows
    make = partial(_make, using, missing, event, clock.now())
    # With some held already, the others would be out of order. On MySQL, an insert that finds a row there locks it for
    # reading, and two that have done so keep each other from writing.
    if rows or connections[using].vendor == "mysql":
        raise Again(make)
    make()
    return {row.digest: row for row in query.all()}


def _make(using: str, counters: Sequence[Counter], event: AttemptEvent | None, now: int) -> None:
    """Make the rows of ``counters``, unless somebody else does; ``event`` tells whose they are."""
    rows = []
    for counter in sorted(counters, key=lambda counter: counter.digest):
        row = new_row(counter.digest, counter.rule.parameters, at=now)
        if event is not None:
            name_client(row, event)
        rows.append(row)
    AttemptCounter.objects.using(using).bulk_create(rows, ignore_conflicts=True)


def was_applied(using: str, event: AttemptEvent) -> bool:
    """Return whether ``event`` has a row: in the outbox table, or in its log."""
    log = AccessFailureLog if event.kind is Kind.FAILED else AccessLog
    ids = [model.objects.using(using).filter(event_id=UUID(event.id)).order_by() for model in (OutboxEvent, log)]
    first, second = (one.values_list("event_id") for one in ids)
    return bool(first.union(second, all=True))


def _kept_of(row: AttemptCounter, now: int) -> KeptCounter:
    return KeptCounter(
        state=state_of(row), reservations=reservations_of(row, now), blocked=row.blocked, told_at=told_at_of(row)
    )
