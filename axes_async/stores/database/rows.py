"""The row codec of a counter: ``AttemptCounter`` to ``CounterState`` and back.

The database store, the projection, the sync and the importer all use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from axes_async.client.keys import keys_of
from axes_async.clock import as_datetime, as_ms
from axes_async.counters.events import AttemptEvent, parameter_bits, parameters_of
from axes_async.counters.rules import Parameter
from axes_async.counters.state import CounterState, ends_of, ends_text
from axes_async.stores.contract import SavedCounter

if TYPE_CHECKING:
    from axes_async.models import AttemptCounter

STATE_FIELDS = ("failures", "since", "limit", "expires_at", "locked_until", "ends", "changed_at", "generation")
"""The columns that ``keep_state`` sets."""

NAME_FIELDS = ("username_key", "ip_address_key", "user_agent_key", "username", "ip_address")
"""The columns that ``name_client`` sets."""

TOLD = ""
"""No token: stands among the reservations for when a prolonged lockout was told last."""


def new_row(digest: str, parameters: tuple[Parameter, ...], *, at: int) -> AttemptCounter:
    """Return the unsaved row of a counter that counts nothing yet; ``at`` is in epoch milliseconds."""
    from axes_async.models import AttemptCounter

    return AttemptCounter(digest=digest, parameters=parameter_bits(parameters), changed_at=as_datetime(at))


def name_client(row: AttemptCounter, event: AttemptEvent) -> None:
    """Note in a row whose counter it is, as far as its parameters tell."""
    named, keys = parameters_of(row.parameters), keys_of(event)
    for name in named:
        setattr(row, f"{name}_key", keys[name])
    row.username = event.username if "username" in named else None
    row.ip_address = event.ip_address if "ip_address" in named else None


def state_of(row: AttemptCounter, *, void: int = -1) -> CounterState:
    """Return the state in ``row``; that of a row of the generation ``void`` or before is empty."""
    if row.generation <= void or not row.failures:
        return CounterState()
    return CounterState(
        failures=row.failures,
        since=0 if row.since is None else as_ms(row.since),
        expires_at=0 if row.expires_at is None else as_ms(row.expires_at),
        locked_until=0 if row.locked_until is None else as_ms(row.locked_until),
        ends=ends_of(row.ends),
    )


def keep_state(row: AttemptCounter, state: CounterState, *, at: int, limit: int, generation: int) -> None:
    """Have ``row`` hold ``state``.

    :param at: when the state changed, in epoch milliseconds.
    :param limit: the limit in force.
    :param generation: the one in force; noted where the counter begins to count.
    """
    if not row.failures or row.since is None or as_ms(row.since) != state.since:
        row.generation = generation
    row.failures, row.limit, row.ends = state.failures, limit, ends_text(state.ends)
    row.since = as_datetime(state.since) if state.since else None
    row.expires_at = as_datetime(state.expires_at) if state.expires_at else None
    row.locked_until = as_datetime(state.locked_until) if state.locked_until else None
    row.changed_at = max(row.changed_at, as_datetime(at))


def reservations_of(row: AttemptCounter, now: int) -> dict[str, int]:
    """Return the open reservations in ``row`` at ``now`` (epoch milliseconds): the end of each lease, by token."""
    return {token: end for token, end in _pairs(row) if end > now and token != TOLD}


def keep_reservations(row: AttemptCounter, reservations: Mapping[str, int], *, told_at: int = 0) -> None:
    """Have ``row`` hold ``reservations``, and when an event last told that its lockout was prolonged."""
    pairs = [*reservations.items(), *([(TOLD, told_at)] if told_at else [])]
    row.reservations = " ".join(f"{quote(token, safe='')}={end}" for token, end in pairs)


def told_at_of(row: AttemptCounter) -> int:
    """Return when an event last told that the lockout was prolonged, in epoch milliseconds; 0: never."""
    return next((time for token, time in _pairs(row) if token == TOLD), 0)


def _pairs(row: AttemptCounter) -> Iterator[tuple[str, int]]:
    for item in row.reservations.split():
        token, _, time = item.partition("=")
        yield unquote(token), int(time)


def saved_of(row: AttemptCounter, now: int, *, void: int = -1) -> SavedCounter:
    """Return ``row`` as a store takes it over; what has expired by ``now``, or is void, counts nothing."""
    state = state_of(row, void=void)
    state.expire(now)
    return SavedCounter(
        digest=row.digest,
        state=state,
        blocked=row.blocked if state.failures else 0,
        reservations=reservations_of(row, now) if row.reservations else {},
    )
