"""What is true of the whole site, read from store and rows when somebody asks: the same from whichever process answers.

The cost is bounded: totals are kept by the drain, and nothing is counted beyond ``MOST``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal, NamedTuple

from django.db import Error, connections

from axes_async.clock import as_datetime, now_ms
from axes_async.counters.events import parameters_of
from axes_async.counters.rules import PARAMETERS
from axes_async.models import AttemptCounter, DrainCursor, StoreState, database
from axes_async.tasks.projection.totals import ADMIN, OUTCOMES, SITE
from axes_async.tasks.projection.writer_lock import OUTBOX
from axes_async.tasks.status import Status, status

MOST = 100_000
"""How far rows are counted: some ten milliseconds. A site with more has what to do, whatever the number."""

Labels = tuple[str, ...]


class Figure(NamedTuple):
    """One metric, without the ``_total`` that Prometheus adds to counters."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    labels: Labels = ()


class Sample(NamedTuple):
    name: str
    values: Labels
    number: float


FIGURES = (
    Figure("axes_attempts", "counter", "Attempts that are written, by what came of them.", ("outcome", "scope")),
    Figure("axes_lockouts", "counter", "Lockouts that failures have set.", ("rule",)),
    Figure("axes_locked", "gauge", f"Counters that are locked now, counted up to {MOST}.", ("rule",)),
    Figure(
        "axes_drained_events", "counter", "Events written: the store's, and the database's of a fallback.", ("outbox",)
    ),
    Figure("axes_outbox_events", "gauge", f"Events that wait; those of the table counted up to {MOST}.", ("outbox",)),
    Figure("axes_outbox_oldest_seconds", "gauge", "Age of the oldest event that waits; 0 where none does."),
    Figure(
        "axes_outbox_overflow", "counter", "Events lost for want of room; axes_status --acknowledge starts it over."
    ),
    Figure("axes_dead_letters", "gauge", "Events that could not be written, and are set aside."),
    Figure("axes_syncs", "counter", "Syncs: full ones, and pushed portions of counters.", ("kind",)),
    Figure("axes_dirty_counters", "gauge", f"Counters that the store has to be told of, counted up to {MOST}."),
    Figure("axes_store_decides", "gauge", "1 while the store decides logins, 0 while the database does in its place."),
    Figure("axes_up", "gauge", "1 for what answers now: store, database, broker.", ("part",)),
    Figure("axes_last_drain_timestamp_seconds", "gauge", "When a worker has drained last."),
    Figure("axes_last_expiry_timestamp_seconds", "gauge", "When beat has had expired rows removed last."),
    Figure("axes_problems", "gauge", "What axes_status finds that needs a person."),
)


def read() -> list[Sample]:
    """Return all that is known now. What cannot be reached is missing, and its ``axes_up`` is 0; nothing is raised.

    A connection to the database that was not open before is closed again: a thread that exports would never do it.
    """
    connection = connections[database()]
    was_open = connection.connection is not None
    try:
        seen = status(at_most=MOST)
        samples = list(_of_status(seen))
        if seen.database_error is None:
            samples += _of_rows()
    except Error:
        samples = [Sample("axes_up", ("database",), 0)]
    finally:
        if not was_open:
            connection.close()
    return samples


def _of_status(seen: Status) -> Iterator[Sample]:
    now = as_datetime(now_ms())
    for part, error in (("store", seen.store_error), ("database", seen.database_error), ("broker", seen.broker_error)):
        yield Sample("axes_up", (part,), 0 if error else 1)
    yield Sample("axes_problems", (), len(list(seen.problems(now))))
    if seen.complete is not None:
        yield Sample("axes_store_decides", (), int(seen.complete))
    known = {
        ("axes_outbox_events", ("store",)): seen.backlog,
        ("axes_outbox_events", ("table",)): seen.table_backlog,
        ("axes_outbox_overflow", ()): seen.overflow,
        ("axes_dead_letters", ()): seen.dead_letters,
        ("axes_dirty_counters", ()): seen.dirty_counters,
        ("axes_last_drain_timestamp_seconds", ()): _seconds(seen.last_drain),
        ("axes_last_expiry_timestamp_seconds", ()): _seconds(seen.last_expiry),
    }
    if seen.database_error is None and seen.store_error is None:
        known["axes_outbox_oldest_seconds", ()] = max(0.0, (now - seen.oldest).total_seconds()) if seen.oldest else 0
    for (name, values), number in known.items():
        if number is not None:
            yield Sample(name, values, number)


def _of_rows() -> Iterator[Sample]:
    using, now = database(), as_datetime(now_ms())
    cursor = DrainCursor.objects.using(using).filter(name=OUTBOX).first() or DrainCursor()
    # A counter that begins when it is first counted hides that first time from rate().
    for outcome in OUTCOMES.values():
        for scope in (ADMIN, SITE):
            number = cursor.totals.get(f"attempts {outcome} {scope}", 0)
            yield Sample("axes_attempts", (outcome, scope), number)
    for outbox in ("store", "table"):
        yield Sample("axes_drained_events", (outbox,), cursor.totals.get(f"drained {outbox}", 0))
    state = StoreState.current(using)
    yield Sample("axes_syncs", ("full",), state.syncs)
    yield Sample("axes_syncs", ("push",), state.pushes)
    locked = AttemptCounter.objects.using(using).locked(now).filter(near_limit=True)  # An index has these by rule.
    for bits in range(1, 1 << len(PARAMETERS)):
        rule = "+".join(parameters_of(bits))
        yield Sample("axes_lockouts", (rule,), cursor.totals.get(f"lockouts {rule}", 0))
        yield Sample("axes_locked", (rule,), locked.filter(parameters=bits)[:MOST].count())


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
