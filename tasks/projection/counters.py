"""What the row of a counter says once an event has told how the counter stands.

Events may come late or twice, and a row may know what was lifted meanwhile: of both, the row has what holds now.
"""

from __future__ import annotations

from axes_async.clock import as_datetime
from axes_async.counters.events import AttemptEvent, CounterState, parameter_bits
from axes_async.ledger import ends_of, ends_text
from axes_async.models import AttemptCounter
from axes_async.tasks.projection.rows import keys_of

COUNTER_FIELDS = ("epoch", "failures", "lifted", "limit", "expires_at", "locked_until", "ends", "updated_at")
"""What ``upsert`` sets where there is a row already."""


def counter_row(
    event: AttemptEvent,
    state: CounterState,
    before: AttemptCounter | None,
    alone: list[tuple[int, CounterState]],
) -> AttemptCounter:
    """Return the row of a counter. Of one life, the store knows the failures, and the row what was lifted.

    :param alone: the times and states from which it follows when each failure ends, where each does so alone.
    """
    if before is not None and before.epoch not in {0, state.epoch}:
        before = None
    keys = keys_of(event)
    row = AttemptCounter(
        digest=state.digest,
        parameters=parameter_bits(state.parameters),
        **{f"{name}_key": keys[name] for name in state.parameters},
        username=event.username if "username" in state.parameters else None,
        ip_address=event.ip_address if "ip_address" in state.parameters else None,
        epoch=state.epoch,
        failures=state.failures,
        lifted=state.lifted,
        limit=state.limit,
        expires_at=as_datetime(state.expires_at) if state.expires_at else None,
        locked_until=as_datetime(state.locked_until) if state.locked_until else None,
        updated_at=as_datetime(event.time),
    )
    if before is not None:
        row.lifted, row.failures = before.lifted, max(before.failures, row.failures)
        if before.locked_until is not None and (row.locked_until is None or row.locked_until < before.locked_until):
            row.locked_until = before.locked_until
        if row.expires_at is not None and (before.expires_at is None or before.expires_at > row.expires_at):
            row.expires_at = before.expires_at
    if state.ends:
        ends = ends_after(before, [told for told in alone if told[1].epoch == state.epoch])
        locked = 0 < row.limit <= min(len(ends), row.failures - row.lifted)
        row.ends, row.locked_until = ends_text(ends), as_datetime(ends[-row.limit]) if locked else None
    return row


def ends_after(before: AttemptCounter | None, told: list[tuple[int, CounterState]]) -> list[int]:
    """Return when each failure of a life ends: those known before, and each that was told, with the end that was told.

    Where an event got lost, its failures end with the one that tells of them.
    """
    failures, ends = (0, []) if before is None else (before.failures, ends_of(before))
    for time, state in told:
        ends = [end for end in ends if end > time]
        if len(state.ends) > 1:
            missing = [0] * (state.standing - len(ends))
            ends = [max(end, state.expires_at) for end in [*missing, *ends]]
        else:
            ends = sorted([*ends, *state.ends * min(state.failures - failures, state.standing)])
        failures = max(failures, state.failures)
        ends = ends[-max(state.limit, state.standing) :]
    return ends


def outlived(state: CounterState, row: AttemptCounter | None, time: int) -> bool:
    """Return whether ``row`` tells of a younger life of the counter than ``state``, which still counted at ``time``."""
    if row is None or row.epoch <= state.epoch or row.lifted >= row.failures:
        return False
    return row.expires_at is None or row.expires_at > as_datetime(time)
