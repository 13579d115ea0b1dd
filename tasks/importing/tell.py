"""The store hears of what was carried over into the rows: after an import, and only once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, CounterState, Kind, new_id
from axes_async.counters.rules import Counter, LockoutTier, Rule
from axes_async.cursor import database, held_cursor
from axes_async.errors import StoreUnavailable
from axes_async.ledger import Ledger
from axes_async.models import AttemptCounter, DrainCursor
from axes_async.stores.contract import OutboxStore, Store
from axes_async.stores.factory import get_store
from axes_async.tasks.drain import drain_batch
from axes_async.tasks.importing.sources import MARK
from axes_async.tasks.rebuild import rebuild_if_cold

PAUSES = (0.2, 0.5, 0.0)
"""Seconds to wait after each try on a store that does not answer; the last one is not waited for."""


def tell_store() -> bool:
    """Have the store take over what counts in the rows; return whether it has.

    Where it cannot be reached, the next drain tells it: raises ``StoreUnavailable`` then.
    """
    for pause in PAUSES:
        try:
            return _tell_store()
        except StoreUnavailable:
            if not pause:
                raise
        time.sleep(pause)
    raise AssertionError("unreachable")


def _tell_store() -> bool:
    store, using = get_store(), database()
    with held_cursor() as cursor:
        marks = DrainCursor.objects.using(using).filter(name__startswith=MARK, unmerged=True)
        if marks.update(unmerged=False) and isinstance(store, OutboxStore):
            cursor.unmerged = True
            cursor.save(using=using, update_fields=["unmerged"])
        elif not isinstance(store, OutboxStore):
            _count_in(store, using)
    if not isinstance(store, OutboxStore):
        return True
    drain_batch(store)
    return rebuild_if_cold(store)


def locked_counters() -> Iterator[CounterState]:
    """Return the counters that are locked by what the rows say."""
    now = now_ms()
    for states in Ledger().portions():
        yield from (state for state in states if state.locked and not 0 < state.locked_until <= now)


def _rule_of(state: CounterState, now: int) -> Rule:
    """Return a rule under which as many failures as ``state`` has come to the same, at ``now``."""
    tiers: tuple[LockoutTier, ...] = ()
    limit = state.limit
    cooloff = (state.expires_at - now) / 1000 if state.expires_at else None
    if state.locked_until > now:
        cooloff = (state.expires_at - state.locked_until) / 1000
        limit = state.standing
        tiers = (LockoutTier(limit, timedelta(milliseconds=state.locked_until - now)),)
    rolling = bool(state.ends)
    return Rule(parameters=state.parameters, limit=limit, cooloff=cooloff, tiers=tiers, rolling=rolling)


def _count_in(store: Store, using: str) -> None:
    """Count in a store that keeps no rows' generation, and cannot be rebuilt, what the rows have more than it."""
    now = now_ms()
    for states in Ledger().portions():
        for state in states:
            if state.lifted < 0 and state.limit:
                counter = Counter(_rule_of(state, now), state.digest)
                (seen,) = store.states([counter], now=now)
                for _ in range(min(state.standing, counter.rule.limit) - seen.standing):
                    event = AttemptEvent(kind=Kind.FAILED, id=new_id(now))
                    store.fail("", [counter], [], event, now=now, lease=0, extend=False)
                (seen,) = store.states([counter], now=now)
                AttemptCounter.objects.using(using).filter(digest=state.digest).update(
                    epoch=seen.epoch, failures=seen.failures, lifted=seen.lifted
                )
