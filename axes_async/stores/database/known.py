"""What a process still knows of counters from a store that was lost before its events were written."""

from __future__ import annotations

from datetime import datetime

from axes_async.clock import as_ms
from axes_async.counters.rules import Counter, Rule
from axes_async.counters.state import CounterState
from axes_async.models import AttemptCounter, StoreState
from axes_async.stores.step import Known


def known_state(
    counter: Counter, state: CounterState, known: Known, row: AttemptCounter | None, store: StoreState, now: int
) -> CounterState | None:
    """Return the state that ``known`` makes of a counter; ``None`` if the row knows as much, or knows better.

    :param state: the state in the row, without what has expired.
    """
    failures, at = known.get(counter.digest, (0, 0))
    if failures <= state.failures or _is_since(store.voided_at, at):
        return None
    if row is not None:
        if _is_since(row.forgiven_at, at):
            return None
        if row.failures >= failures and row.expires_at is not None and at < as_ms(row.expires_at):
            return None  # The row has had these very failures, and they have expired.
    rule, lock_end = counter.rule, _lock_end(counter.rule, failures, at)
    expires_at = (lock_end or at) + rule.window_ms if rule.window_ms else 0
    if 0 < expires_at <= now:
        return None
    # It is not known when each was made: under a rolling window, each is taken to be as young as it can be.
    ends = sorted([*state.ends, *[expires_at] * (failures - state.failures)]) if rule.rolling else []
    return CounterState(failures, state.since or at, expires_at, lock_end, ends)


def _lock_end(rule: Rule, failures: int, at: int) -> int:
    """Return when the lockout of a tier ends that so many failures have just set; 0 if they set none.

    Failures that no row has are of the last moments: a tier that they reach exactly has locked then.
    """
    reached = [tier.failures for tier in rule.tiers if tier.failures <= failures]
    if not reached or (reached[-1] != failures and reached[-1] != rule.tiers[-1].failures):
        return 0
    return at + rule.lockout_ms(failures)


def _is_since(moment: datetime | None, at: int) -> bool:
    return moment is not None and as_ms(moment) >= at
