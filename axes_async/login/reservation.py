"""Places for attempts: taken before a password is looked at, and given back if nothing else settles them.

``guard`` is what the rest of the package calls; what a settled attempt counts for is decided in ``settlement``.
"""

from __future__ import annotations

import logging
import time
from asyncio import sleep as asyncio_sleep
from collections.abc import Iterator
from random import uniform

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from axes_async.client.display import client_str
from axes_async.client.exemptions import Treatment, count_refusal, treatment_of
from axes_async.client.identity import Client
from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.conf.rules import Credentials
from axes_async.counters.events import Kind, new_id, worth_a_row
from axes_async.delivery import publisher as outbox
from axes_async.errors import StoreUnavailable
from axes_async.login import audit
from axes_async.login.attempt import client_behind, event_of, mark_locked, new_attempt, without
from axes_async.login.rules import counters_of
from axes_async.login.state import Attempt, AxesState, flag, state_of
from axes_async.stores.factory import get_failover
from axes_async.stores.results import PERMANENT, Outcome, Verdict

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.004, 0.05
"""Seconds between two looks at a busy counter: a password check takes 50 to 300 ms."""

REFUSED = Outcome(Verdict.LOCKED, PERMANENT)
"""What a client meets that is refused for what it is."""

NO_LEASE = 0
"""Where no request ends, nothing could give a reservation back, so the attempt is only checked."""


def reserve(request: HttpRequest | None, credentials: Credentials) -> Attempt | None:
    """Reserve a place for one try of a password, waiting up to ``AXES_RESERVE_WAIT`` for one.

    Return the attempt, which is ``denied`` if there is none; ``None`` while ``AXES_ENABLED`` is off.
    """
    attempt, pauses = _begin(request, credentials)
    for pause in pauses:
        time.sleep(pause)
    return attempt


async def areserve(request: HttpRequest | None, credentials: Credentials) -> Attempt | None:
    """Do as ``reserve``, without holding up the event loop.

    Of several tasks of a request, the others wait as long as for a place until the attempt of one is settled.
    """
    settings, state = get_settings(), state_of(request)
    if settings.enabled and not state.detached and not await state.turns.take(wait=settings.reserve_wait):
        state.busy = True
        return Attempt(id=new_id(now_ms()), client=Client(canonical={}), counters=(), own=(), verdict=Verdict.BUSY)
    attempt, pauses = await sync_to_async(_begin)(request, credentials)
    look = sync_to_async(_next_pause)
    while (pause := await look(pauses)) is not None:  # noqa: ASYNC110  (no event crosses hosts)
        await asyncio_sleep(pause)
    return attempt


def release(state: AxesState) -> None:
    """Give back what the latest attempt of a request still holds: it was neither a failure nor a login."""
    attempt = state.attempt
    state.turns.end()
    if attempt is not None and not attempt.settled:
        attempt.settled = True  # First, so that a place which comes only now, to a request that has ended, is seen.
        _give_back(attempt)


async def arelease(state: AxesState) -> None:
    """Do as ``release``, without holding up the event loop."""
    state.turns.end()
    if state.attempt is not None and not state.attempt.settled:
        if state.attempt.reserved:
            await sync_to_async(release)(state)
        else:
            release(state)


def _begin(request: HttpRequest | None, credentials: Credentials) -> tuple[Attempt | None, Iterator[float]]:
    """Return the attempt that is to be reserved, a new one or the open one widened, and what reserves it."""
    settings = get_settings()
    if not settings.enabled:
        return None, iter(())
    state = state_of(request)
    client = client_behind(request, credentials)
    counters = counters_of(settings, request, credentials, client)
    treatment = treatment_of(settings, request, credentials, client)
    if state.locked_out:
        flag(request, locked_out=False)
    state.locked_out = state.busy = state.unavailable = False
    state.locked_until, state.failure_limit, state.cooloff = 0, 0, None
    state.client = client
    held = state.attempt
    if held is None or not held.open or state.detached:
        if held is not None and not held.settled:
            _give_back(held)  # What it had before the store could not be asked for more.
        state.attempt = held = new_attempt(client, counters)
    else:
        # After an attempt that took no places, those that it has counters for are still to be taken.
        if held.treatment is not treatment or not set(counters) <= set(held.counters):
            held.verdict = None
        held.client, held.counters, held.own = client, (*without(held.counters, counters), *counters), counters
    held.treatment, held.informed = treatment, credentials is not None
    if credentials is not None:
        held.clearable = counters
    if treatment is Treatment.REFUSED:
        _refuse(request, held)
    elif treatment is not Treatment.GUARDED:
        held.verdict = Verdict.ALLOWED
    return held, _reserving(request, held)


def _refuse(request: HttpRequest | None, attempt: Attempt) -> None:
    """Turn away an attempt of a client that is refused for what it is; of a flood, few are recorded.

    It holds no place: an address is refused for all attempts of a request, or for none.
    """
    attempt.verdict = Verdict.LOCKED
    mark_locked(state_of(request), (), REFUSED, request)
    repeats = count_refusal(attempt.client, now_ms())
    if not worth_a_row(repeats):
        return
    log.warning("Refused, by its address: %s.", client_str(attempt.client, request, attempt.counters))
    if get_settings().enable_access_failure_log:
        event = event_of(Kind.BLOCKED, attempt.id, attempt.client).seen((), repeats=repeats)
        try:
            outbox.follow_up(get_failover().record(event))
        except StoreUnavailable as error:
            log.error("Refusal not recorded, the store is unavailable (%s): %s", error, event.line())


def _reserving(request: HttpRequest | None, attempt: Attempt) -> Iterator[float]:
    """Ask the store until it gives a clear answer or the wait is over; yield each pause between, in seconds."""
    if attempt.verdict is not None:
        return
    if not any(counter.rule.limit for counter in attempt.counters):
        attempt.verdict = Verdict.ALLOWED
        return
    settings, state = get_settings(), state_of(request)
    lease = NO_LEASE if state.detached else settings.lease_ms
    extend = settings.reset_cool_off_on_failure_during_lockout
    told = settings.enable_access_failure_log or extend
    blocked = event_of(Kind.BLOCKED, attempt.id, attempt.client) if told else None
    give_up = time.monotonic() + settings.reserve_wait
    pause = FIRST_PAUSE
    while True:
        try:
            outcome = get_failover().reserve(
                attempt.token,
                attempt.counters,
                blocked,
                now=now_ms(),
                lease=lease,
                extend=extend,
            )
        except StoreUnavailable as error:
            log.error("Attempt turned away, the store is unavailable (%s).", error)
            state.unavailable = True
            return
        if outcome.verdict is not Verdict.BUSY:
            break
        wait = outcome.wait / 1000 or uniform(pause / 2, pause)  # noqa: S311  (spreads the load, hides nothing)
        if time.monotonic() + wait > give_up:
            break
        yield wait
        pause = min(pause * 1.5, LONGEST_PAUSE)
    attempt.verdict = outcome.verdict
    if outcome.verdict is Verdict.ALLOWED:
        attempt.reserved = True
    if attempt.settled or outcome.verdict is not Verdict.ALLOWED:
        _give_back(attempt)
    if state.detached and attempt.reserved:
        state.attempt = None  # Nothing is held, and nothing will end it.
    state.busy = outcome.verdict is Verdict.BUSY
    if outcome.verdict is Verdict.LOCKED:
        mark_locked(state, attempt.counters, outcome, request)
    outbox.follow_up(outcome)
    if outcome.repeats:
        occasion = audit.Occasion(attempt.client, attempt.id, request, attempt.counters)
        audit.turned_away(occasion, limit=state.failure_limit, repeats=outcome.repeats)


def _give_back(attempt: Attempt) -> None:
    if attempt.reserved:
        try:
            get_failover().release(attempt.token, attempt.counters, now=now_ms())
        except StoreUnavailable as error:
            log.warning("A place is left to its lease, the store is unavailable (%s).", error)
    attempt.reserved = False


def _next_pause(pauses: Iterator[float]) -> float | None:
    return next(pauses, None)
