"""The row codec of a counter: ``AttemptCounter`` to ``CounterState`` and back.

The database store, the projection, the sync and the importer all use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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
    row.changed_at = max(row.changed_at, as_datetime(at)) if row.changed_at else as_datetime(at)


def reservations_of(row: AttemptCounter, now: int) -> dict[str, int]:
    """Return the open reservations in ``row`` at ``now`` (epoch milliseconds): the end of each lease, by token."""
    pairs = (item.partition("=") for item in row.reservations.split())
    return {token: int(end) for token, _, end in pairs if int(end) > now}


def keep_reservations(row: AttemptCounter, reservations: Mapping[str, int]) -> None:
    """Have ``row`` hold ``reservations``."""
    row.reservations = " ".join(f"{token}={end}" for token, end in reservations.items())


def saved_of(row: AttemptCounter, now: int, *, void: int = -1) -> SavedCounter:
    """Return ``row`` as a store takes it over; what has expired by ``now``, or is void, counts nothing."""
    state = state_of(row, void=void)
    state.expire(now)
    return SavedCounter(
        digest=row.digest,
        state=state,
        limit=row.limit,
        blocked=row.blocked if state.failures else 0,
        reservations=reservations_of(row, now),
    )
