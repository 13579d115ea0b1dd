"""The counters of a batch of events: what the store did to each is done to its row.

The rows are locked in the order of their digests, as in the steps of the database store, so the two never wait for each
other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from django.db.models import Q

from axes_async.client.keys import ADDRESS, attempt_key, counter_columns, keys_of
from axes_async.clock import as_ms
from axes_async.counters.events import AttemptEvent, CounterChange, Kind, parameter_bits, parameters_of
from axes_async.counters.rules import PARAMETERS, Parameter
from axes_async.counters.state import CounterState, ends_text
from axes_async.models import AttemptCounter, CounterQuerySet
from axes_async.stores.database.rows import STATE_FIELDS, keep_state, state_of
from axes_async.tasks.projection.bulk import Columns, Moments, upsert

KEYS = tuple(f"{name}_key" for name in PARAMETERS)

COLUMNS = (
    *("digest", "parameters", *KEYS, "username", "ip_address"),
    *("failures", "since", "limit", "expires_at", "locked_until", "ends", "changed_at", "generation", "blocked"),
    *("reservations", "void_generation", "dirty"),
)
"""What ``_values`` returns."""

Group = tuple[int, tuple[str, ...]]
"""A counter's parameters, as bits, and the key of each."""


@dataclass(frozen=True)
class Entry:
    """An event, and the generation that it was appended in; ``None``: its step has changed the counter rows itself."""

    event: AttemptEvent
    generation: int | None

    @cached_property
    def keys(self) -> dict[Parameter, str]:
        return keys_of(self.event)

    @cached_property
    def attempt_key(self) -> str:
        return attempt_key(self.event)

    def group_of(self, change: CounterChange) -> Group:
        return parameter_bits(change.parameters), tuple(self.keys[name] for name in change.parameters)


class Told(NamedTuple):
    """What one event tells of one counter."""

    change: CounterChange
    entry: Entry
    generation: int


@dataclass(slots=True)
class Replayed:
    """What came of it."""

    void: dict[str, int] = field(default_factory=dict)
    """Up to which generation events count nothing, by digest, where a reset has set that."""
    cleared: set[Group] = field(default_factory=set)
    """Counters that a login has cleared."""
    locked: dict[Group, int] = field(default_factory=dict)
    """When the counters expire that are locked, in epoch milliseconds; 0: only by a reset."""


@dataclass(slots=True)
class _Counter:
    state: CounterState = field(default_factory=CounterState)
    changed_at: int = 1
    limit: int = 0
    blocked: int = 0
    generation: int = 0
    dirty: bool = False
    cleared: bool = False

    def replay(self, told: Told) -> None:
        change, event, since = told.change, told.entry.event, self.state.since
        if change.cleared and self.dirty:
            return  # The row may have failures that the store did not: a login has not cleared those.
        late = event.time < self.changed_at
        self.state.replay(change, event.time, late=late)
        if self.state.since != since:
            self.generation = told.generation
        if not late:
            self.limit, self.changed_at = change.limit, event.time
        if change.counted or change.cleared:
            self.blocked = 0
        elif event.kind is Kind.BLOCKED:
            self.blocked = max(self.blocked, event.repeats)
        self.cleared = self.cleared or change.cleared

    def note(self, result: Replayed, group: Group) -> None:
        if self.cleared:
            result.cleared.add(group)
        if 0 < self.limit <= self.state.failures:
            result.locked[group] = self.state.expires_at


def replay(told: Mapping[str, Sequence[Told]], using: str, *, void: int, moments: Moments) -> Replayed:
    """Change the rows of counters as ``told``, by digest; events up to the generation ``void`` change nothing."""
    result, columns = Replayed(), Columns(AttemptCounter, COLUMNS, using)
    new = {digest: _Counter() for digest in sorted(told)}
    inserted: set[str] = set()
    if columns.takes_copies:
        for digest, counter in new.items():
            for one in told[digest]:
                if one.generation > void:
                    counter.replay(one)
        inserted = columns.insert_or_lock([_values(told[digest][0], new[digest], moments) for digest in new], "digest")
        for digest in inserted:
            change, entry, _ = told[digest][0]
            new[digest].note(result, entry.group_of(change))
    else:
        blank = [_values(told[digest][0], counter, moments) for digest, counter in new.items()]
        columns.upsert(blank, key=["digest"], fields=["parameters"])
    # MySQL shows what is committed by now only to those who lock.
    rows = AttemptCounter.objects.using(using).filter(digest__in=[*new.keys() - inserted]).select_for_update()
    changed = [row for row in rows if _replay_onto(row, told[row.digest], result, void)]
    upsert(AttemptCounter, changed, key=["digest"], fields=(*STATE_FIELDS, "blocked"), using=using)
    cleared = [digest for digest, all_of_it in told.items() if any(one.change.cleared for one in all_of_it)]
    # A row may say more than that it counts nothing.
    empty = AttemptCounter.objects.using(using).filter(digest__in=cleared, failures=0, void_generation__lt=0)
    empty.filter(dirty=False, reservations="").delete()
    return result


def _values(first: Told, counter: _Counter, moments: Moments) -> tuple[Any, ...]:
    state, change, keys, event = counter.state, first.change, first.entry.keys, first.entry.event
    named = change.parameters
    names = [keys[name] if name in named else "" for name in PARAMETERS]
    shown = [getattr(event, name) if name in named else None for name in ("username", "ip_address")]
    since, expires_at, locked_until = (moments[at] for at in (state.since, state.expires_at, state.locked_until))
    counted = state.failures, since, counter.limit, expires_at, locked_until, ends_text(state.ends)
    changed = moments[counter.changed_at], counter.generation, counter.blocked
    return (change.digest, parameter_bits(named), *names, *shown, *counted, *changed, "", -1, False)


def _replay_onto(row: AttemptCounter, told: Sequence[Told], result: Replayed, void: int) -> bool:
    """Change a row; return whether anything was changed."""
    if row.void_generation >= 0:
        result.void[row.digest] = row.void_generation
    counts = [one for one in told if one.generation > max(void, row.void_generation)]
    if not counts:
        return False
    if row.generation <= void:
        row.failures = row.blocked = 0
    counter = _Counter(state_of(row), as_ms(row.changed_at), row.limit, row.blocked, row.generation, row.dirty)
    for one in counts:
        counter.replay(one)
    keep_state(row, counter.state, at=counter.changed_at, limit=counter.limit, generation=counter.generation)
    row.generation, row.blocked = counter.generation, counter.blocked
    counter.note(result, group_of(row))
    return True


def group_of(row: Any) -> Group:
    return row.parameters, keys_under(row.parameters, row)


def keys_under(bits: int, row: Any) -> tuple[str, ...]:
    """Return the keys of an attempt or a counter that a counter with these parameters is made of."""
    return tuple(getattr(row, f"{name}_key") for name in parameters_of(bits))


def counters_of(
    attempts: Sequence[Any], using: str, kinds: Sequence[int] = range(1, 1 << len(PARAMETERS))
) -> CounterQuerySet:
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
    return AttemptCounter.objects.using(using).counting().filter(shared)


def existing_kinds(using: str) -> Iterator[int]:
    """Return the kinds of rules that there are counters of; an index leads to each but that of addresses alone."""
    for bits in range(1, 1 << len(PARAMETERS)):
        if bits == ADDRESS or AttemptCounter.objects.using(using).filter(parameters=bits).exists():
            yield bits
