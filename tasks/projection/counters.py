"""The counters of a batch of events: what the store did to each is done to its row.

The rows are locked in the order of their digests, as in the steps of the database store, so the two never wait for each
other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from django.db.models import Q

from axes_async.client.keys import ADDRESS, counter_columns
from axes_async.clock import as_ms
from axes_async.counters.events import AttemptEvent, CounterChange, Kind, parameter_bits, parameters_of
from axes_async.counters.rules import PARAMETERS, Parameter
from axes_async.counters.state import CounterState, ends_text
from axes_async.models import AttemptCounter
from axes_async.stores.database.rows import STATE_FIELDS, keep_state, new_row, state_of
from axes_async.tasks.projection.bulk import Columns, Moments

KEYS = tuple(f"{name}_key" for name in PARAMETERS)
NAMES = ("digest", "parameters", *KEYS, "username", "ip_address", *STATE_FIELDS, "blocked")
CONSTANT = ("reservations", "void_generation", "dirty")
"""What a new row has its default in."""

CHANGED = (*STATE_FIELDS, "blocked")
"""What a replay sets."""

WRITTEN = attrgetter(*NAMES, *CONSTANT)

ClientKeys = Mapping[Parameter, str]
Group = tuple[int, tuple[str, ...]]
"""A counter's parameters, as bits, and the key of each."""


class Told(NamedTuple):
    """What one event tells of one counter."""

    change: CounterChange
    event: AttemptEvent
    generation: int
    keys: ClientKeys


@dataclass(slots=True)
class Replayed:
    """What came of it."""

    void: dict[str, int] = field(default_factory=dict)
    """Up to which generation events count nothing, by digest, where a reset has set that."""
    cleared: set[Group] = field(default_factory=set)
    """Counters that a login has cleared."""
    locked: dict[Group, int] = field(default_factory=dict)
    """When the counters expire that are locked, in epoch milliseconds; 0: only by a reset."""

    def note(self, state: CounterState, after: _After, *, group: Group) -> None:
        """Note what attempts have to follow."""
        if after.cleared:
            self.cleared.add(group)
        if 0 < after.limit <= state.failures:
            self.locked[group] = state.expires_at


def replay(told: Mapping[str, Sequence[Told]], using: str, *, void: int, moments: Moments) -> Replayed:
    """Change the rows of counters as ``told``, by digest; events up to the generation ``void`` change nothing."""
    result = Replayed()
    columns, rows = Columns(AttemptCounter, (*NAMES, *CONSTANT), using), AttemptCounter.objects.using(using)
    digests = sorted(told)
    if columns.takes_copies:
        new = {digest: _replay_alone(told[digest], void) for digest in digests}
        values = [_values(told[digest][0], *new[digest], moments) for digest in digests]
        inserted = columns.insert_or_lock(values, key="digest")
        for digest in inserted:
            result.note(*new[digest], group=_group_of(told[digest][0]))
        digests = [digest for digest in digests if digest not in inserted]
    else:
        blank = [WRITTEN(_blank(told[digest][0])) for digest in digests]
        columns.upsert(blank, key="digest", fields=["parameters"])
        rows = rows.select_for_update()  # MySQL shows what is committed by now only to those who lock.
    if digests:
        changed = [
            WRITTEN(row) for row in rows.filter(digest__in=digests) if _replay_onto(row, told[row.digest], result, void)
        ]
        columns.upsert(changed, key="digest", fields=CHANGED)
    _forget_empty([digest for digest, all_of_it in told.items() if any(one.change.cleared for one in all_of_it)], using)
    return result


def counting(using: str, *, void: int) -> Any:
    """Return the counters that count anything, expired ones among them."""
    return AttemptCounter.objects.using(using).filter(failures__gt=0, generation__gt=void)


def group_of(row: Any) -> Group:
    """Return the group of a counter's row."""
    return row.parameters, keys_under(row.parameters, row)


def keys_under(bits: int, row: Any) -> tuple[str, ...]:
    """Return the keys of an attempt or a counter that a counter with these parameters is made of."""
    return tuple(getattr(row, f"{name}_key") for name in parameters_of(bits))


def _replay_alone(told: Sequence[Told], void: int) -> tuple[CounterState, _After]:
    """Return what becomes of a counter that has no row."""
    state, after = CounterState(), _After()
    for one in told:
        if one.generation > void:
            after.replay(state, one)
    return state, after


def _values(first: Told, state: CounterState, after: _After, moments: Moments) -> tuple[Any, ...]:
    """Return the values of a new row."""
    change, event, _, keys = first
    named = change.parameters
    return (
        change.digest,
        parameter_bits(named),
        *[keys[name] if name in named else "" for name in PARAMETERS],
        event.username if "username" in named else None,
        event.ip_address if "ip_address" in named else None,
        state.failures,
        moments[state.since],
        after.limit,
        moments[state.expires_at],
        moments[state.locked_until],
        ends_text(state.ends),
        moments[after.changed_at or event.time],
        after.generation,
        after.blocked,
        "",
        -1,
        False,
    )


def _group_of(told: Told) -> Group:
    return parameter_bits(told.change.parameters), tuple(told.keys[name] for name in told.change.parameters)


def _replay_onto(row: AttemptCounter, told: Sequence[Told], result: Replayed, void: int) -> bool:
    """Change a row; return whether anything was changed."""
    if row.void_generation >= 0:
        result.void[row.digest] = row.void_generation
    counts = [one for one in told if one.generation > max(void, row.void_generation)]
    if not counts:
        return False
    if row.generation <= void:
        row.failures = row.blocked = 0
    state = state_of(row)
    after = _After(as_ms(row.changed_at), row.limit, row.blocked, row.generation, row.dirty)
    for one in counts:
        after.replay(state, one)
    keep_state(row, state, at=after.changed_at, limit=after.limit, generation=after.generation)
    row.generation, row.blocked = after.generation, after.blocked
    result.note(state, after, group=group_of(row))
    return True


@dataclass(slots=True)
class _After:
    """What a row has beside its state, after the changes so far."""

    changed_at: int = 0
    limit: int = 0
    blocked: int = 0
    generation: int = 0
    dirty: bool = False
    cleared: bool = False

    def replay(self, state: CounterState, told: Told) -> None:
        """Apply one change."""
        change, at, since = told.change, told.event.time, state.since
        if change.cleared and self.dirty:
            return  # The row may have failures that the store did not: a login has not cleared those.
        late = at < self.changed_at
        state.replay(change, at, late=late)
        if state.since != since:
            self.generation = told.generation
        if not late:
            self.limit, self.changed_at = change.limit, at
        if change.counted or change.cleared:
            self.blocked = 0
        elif told.event.kind is Kind.BLOCKED:
            self.blocked = max(self.blocked, told.event.repeats)
        self.cleared = self.cleared or change.cleared


def _blank(told: Told) -> AttemptCounter:
    """Return the unsaved row of a counter that counts nothing."""
    row = new_row(told.change.digest, told.change.parameters, at=0)
    for name in told.change.parameters:
        setattr(row, f"{name}_key", told.keys[name])
    row.username = told.event.username if "username" in told.change.parameters else None
    row.ip_address = told.event.ip_address if "ip_address" in told.change.parameters else None
    return row


def _forget_empty(digests: Sequence[str], using: str) -> None:
    """Delete rows that a login has cleared, unless they say more than that."""
    if digests:
        rows = AttemptCounter.objects.using(using).filter(digest__in=digests, failures=0, void_generation__lt=0)
        rows.filter(dirty=False, reservations="").delete()


def counters_of(
    attempts: Sequence[Any], using: str, *, void: int, kinds: Sequence[int] = range(1, 1 << len(PARAMETERS))
) -> Any:
    """Return the counters of these kinds of rules that ``attempts`` count in, and perhaps some others.

    A counter of several values is looked for by all of them: each alone may be that of a million others.
    """
    shared = Q(pk__in=[])
    for bits in kinds:
        columns = counter_columns(bits).items()
        keys = {
            f"{column}__in": {getattr(row, of_attempt) for row in attempts} - {""} for column, of_attempt in columns
        }
        if all(keys.values()):
            shared |= Q(parameters=bits, **keys)
    return counting(using, void=void).filter(shared)


def existing_kinds(using: str) -> Iterator[int]:
    """Return the kinds of rules that there are counters of; an index leads to each but that of addresses alone."""
    for bits in range(1, 1 << len(PARAMETERS)):
        if bits == ADDRESS or AttemptCounter.objects.using(using).filter(parameters=bits).exists():
            yield bits
