"""Reservations of checks that take long: a thread renews them, so that no lease ends before its check does."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from weakref import ref

from django.db import connections

from axes_async.conf import get_settings
from axes_async.errors import StoreUnavailable
from axes_async.login.attempt import Attempt
from axes_async.login.backlog import Backlog
from axes_async.login.state import AxesState
from axes_async.stores.factory import get_failover
from axes_async.stores.results import Verdict
from axes_async.stores.step import Step, StepKind

log = logging.getLogger(__name__)

LEASES = 10
"""How many leases a check may take: one that hangs gives its place up at last."""

PARTS = 3
"""A reservation is renewed after this part of its lease, so that a store which is away for a moment ends none."""

MOST = 100_000
"""Attempts of this process that are looked after at most; each is about 0.3 kB."""


@dataclass(slots=True)
class Held:
    """An attempt that holds reservations, as long as its request is there.

    Where no middleware ends the request, what is reserved ends with its lease, and not ``LEASES`` later.
    """

    state: ref[AxesState]
    attempt: ref[Attempt]
    since: float
    due: float
    """When it is to be renewed; both are seconds of ``time.monotonic``."""

    @property
    def open(self) -> tuple[AxesState, Attempt] | None:
        """The attempt and its state, if its check may still be at work."""
        state, attempt = self.state(), self.attempt()
        if state is None or attempt is None or attempt.settled or not attempt.reserved:
            return None
        return state, attempt


def keep(state: AxesState, attempt: Attempt) -> None:
    """Renew what ``attempt`` holds until it is settled, or its request is gone, or ``LEASES`` are over."""
    at = attempt.reserved_at
    _backlog.add(Held(ref(state), ref(attempt), since=at, due=at + _part()))


def _is_done(held: Held) -> bool:
    """Wait until the reservation is to be renewed, and renew it; return whether it needs no more of that."""
    lease = get_settings().reserve_lease
    if held.open is None or held.due > held.since + (LEASES - 1) * lease:
        return True
    time.sleep(max(0.0, held.due - time.monotonic()))
    if (found := held.open) is None:
        return True
    state, attempt = found
    try:
        if not attempt.is_checked:
            _renew(attempt)
        elif state.is_over:  # Else a login may follow, or another check in the same block.
            attempt.settle(recorded=False)
            get_failover().release(attempt.token, attempt.counters)
    except StoreUnavailable as error:
        log.warning("A reservation is not renewed, the store is unavailable (%s).", error)
    except Exception:
        log.exception("A reservation is not renewed.")
    finally:
        connections.close_all()
    held.due = time.monotonic() + _part()
    return False


def _renew(attempt: Attempt) -> None:
    """Reserve again under the same token. On a counter that is locked, it would be taken for an attempt turned away."""
    store, asked_at = get_failover(), time.monotonic()
    generation = store.generation
    if store.peek(attempt.counters).verdict is Verdict.LOCKED:
        return
    result = store.do(Step(StepKind.RESERVE, attempt.token, attempt.counters, lease=get_settings().lease_ms))
    if result.verdict is Verdict.ALLOWED:
        attempt.reserved_at, attempt.held_in = asked_at, generation
    if attempt.settled and not attempt.given_up:  # Meanwhile.
        store.release(attempt.token, attempt.counters)


def _part() -> float:
    return get_settings().reserve_lease / PARTS


_backlog = Backlog("axes-async-renewal", _is_done, most=MOST, rests=_part)
