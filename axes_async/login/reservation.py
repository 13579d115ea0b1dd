"""Reservations of attempts: made before a password is looked at, and released if nothing else settles them.

What a settled attempt counts for is decided in ``settlement``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from random import uniform

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from axes_async.client.display import client_str
from axes_async.client.exemptions import Exemption, count_refusal, exemption_of
from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.conf.lockout_rules import Credentials
from axes_async.counters.events import Kind, worth_a_row
from axes_async.delivery import publisher
from axes_async.errors import StoreUnavailable
from axes_async.login import audit
from axes_async.login.attempt import client_behind, event_of, mark_locked, new_attempt, without
from axes_async.login.rules import counters_of
from axes_async.login.state import Attempt, AxesState, flag, own_attempt, state_of
from axes_async.stores.factory import get_failover
from axes_async.stores.results import PERMANENT, StepResult, Verdict

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.004, 0.05
"""Seconds between two looks at a busy counter: a password check takes 50 to 300 ms."""

REFUSED = StepResult(Verdict.LOCKED, PERMANENT)
"""What a client meets that is refused for what it is."""

NO_LEASE = 0
"""Where no request ends, nothing could release a reservation, so the attempt is only checked."""


def reserve(request: HttpRequest | None, credentials: Credentials) -> Attempt | None:
    """Reserve one try of a password, waiting up to ``AXES_RESERVE_WAIT`` while other attempts leave no room.

    Return the attempt, which is ``denied`` if there is no reservation; ``None`` while ``AXES_ENABLED`` is off.
    """
    asking = _Asking(request, credentials, None)
    pause = asking.begin()
    while pause:
        time.sleep(pause)
        pause = asking.again()
    return asking.attempt


async def areserve(request: HttpRequest | None, credentials: Credentials) -> Attempt | None:
    """Do as ``reserve``, without holding up the event loop."""
    asking = _Asking(request, credentials, asyncio.current_task())
    try:
        pause = await sync_to_async(asking.begin)()
        while pause:
            await asyncio.sleep(pause)
            pause = await sync_to_async(asking.again)()
    except BaseException:  # Also a client that went away: the thread may be about to make the reservation.
        asking.is_given_up = True
        if asking.attempt is not None:
            await arelease([asking.attempt])
        raise
    return asking.attempt


def release(attempts: Iterable[Attempt]) -> None:
    """Release what ``attempts`` still hold: they were neither a failure nor a login."""
    for attempt in attempts:
        if not attempt.settled:
            attempt.settled = True  # First: a reservation that is made only now finds that its attempt has ended.
            _release(attempt)


async def arelease(attempts: Iterable[Attempt]) -> None:
    """Do as ``release``, without holding up the event loop."""
    attempts = [attempt for attempt in attempts if not attempt.settled]
    if any(attempt.reserved for attempt in attempts):
        await sync_to_async(release)(attempts)
    else:
        release(attempts)


class _Asking:
    """Asks the store for the reservation of one try, until the answer is clear or the wait is over."""

    def __init__(
        self, request: HttpRequest | None, credentials: Credentials, task: asyncio.Task[object] | None
    ) -> None:
        self.request, self.credentials, self.task = request, credentials, task
        self.settings, self.state = get_settings(), state_of(request)
        self.attempt: Attempt | None = None
        self.is_given_up = False

    def begin(self) -> float:
        """Begin an attempt, or widen the one that this try may share, and ask for its reservation.

        Return how many seconds to wait before ``again``; 0 once it is decided.
        """
        settings, state, request = self.settings, self.state, self.request
        if not settings.enabled:
            return 0.0
        client = client_behind(request, self.credentials)
        counters = counters_of(settings, request, self.credentials, client)
        exemption = exemption_of(settings, request, self.credentials, client)
        if state.locked_out:
            flag(request, locked_out=False)
        state.clear()
        state.client = client
        attempt = own_attempt(state)
        if attempt is None or state.detached or not attempt.is_shared_with(self.task):
            if attempt is not None and attempt.denied:
                _release(attempt)  # It may hold some from before it was widened.
                state.drop(attempt)
            attempt = new_attempt(client, counters)
            state.add(attempt)
        else:
            # After an attempt that needed no reservations, those on its counters are still to be made.
            if attempt.exemption is not exemption or not set(counters) <= set(attempt.counters):
                attempt.verdict = None
            attempt.counters = (*without(attempt.counters, counters), *counters)
            attempt.client, attempt.own = client, counters
        self.attempt, attempt.task = attempt, self.task
        attempt.exemption, attempt.informed = exemption, self.credentials is not None
        if attempt.informed:
            attempt.clearable = counters
        if exemption is Exemption.REFUSED:
            _refuse(request, state, attempt)
        elif exemption is not Exemption.NONE or not any(counter.rule.limit for counter in attempt.counters):
            attempt.verdict = Verdict.ALLOWED
        if attempt.verdict is not None:
            return 0.0
        self.extend = settings.reset_cool_off_on_failure_during_lockout
        told = settings.enable_access_failure_log or self.extend
        self.event = event_of(Kind.BLOCKED, attempt.id, client) if told else None
        self.lease = NO_LEASE if state.detached else settings.lease_ms
        self.give_up, self.pause = time.monotonic() + settings.reserve_wait, FIRST_PAUSE
        return self._ask(attempt)

    def again(self) -> float:
        """Ask once more. Return what ``begin`` returns."""
        return 0.0 if self.attempt is None else self._ask(self.attempt)

    def _ask(self, attempt: Attempt) -> float:
        try:
            result = get_failover().reserve(
                attempt.token, attempt.counters, self.event, lease=self.lease, extend=self.extend
            )
        except StoreUnavailable as error:
            log.error("Attempt turned away, the store is unavailable (%s).", error)
            publisher.nudge_for_sync()
            self.state.unavailable = True
            return 0.0
        if result.verdict is Verdict.BUSY and not self.is_given_up:
            wait = uniform(self.pause / 2, self.pause)  # noqa: S311  (spreads the load, hides nothing)
            if time.monotonic() + wait <= self.give_up:
                self.pause = min(self.pause * 1.5, LONGEST_PAUSE)
                return wait
        self._decide(attempt, result)
        return 0.0

    def _decide(self, attempt: Attempt, result: StepResult) -> None:
        state, request = self.state, self.request
        attempt.verdict = result.verdict
        if result.verdict is Verdict.ALLOWED:
            attempt.reserved = True
        if attempt.settled or self.is_given_up or result.verdict is not Verdict.ALLOWED:
            _release(attempt)
        if state.detached and attempt.reserved:
            state.drop(attempt)
        state.busy = result.verdict is Verdict.BUSY
        if result.verdict is Verdict.LOCKED:
            mark_locked(state, attempt.counters, result, request)
        publisher.follow_up(result)
        if result.repeats:
            context = audit.LogContext(attempt.client, attempt.id, request, attempt.counters)
            audit.turned_away(context, limit=state.failure_limit, repeats=result.repeats)


def _refuse(request: HttpRequest | None, state: AxesState, attempt: Attempt) -> None:
    """Turn away an attempt of a client that is refused for what it is; of a flood, few are recorded.

    It holds no reservation: an address is refused for all attempts of a request, or for none.
    """
    attempt.verdict = Verdict.LOCKED
    mark_locked(state, (), REFUSED, request)
    repeats = count_refusal(attempt.client, now_ms())
    if not worth_a_row(repeats):
        return
    log.warning("Refused, by its address: %s.", client_str(attempt.client, request, attempt.counters))
    if get_settings().enable_access_failure_log:
        event = event_of(Kind.BLOCKED, attempt.id, attempt.client).applied((), at=0, repeats=repeats)
        try:
            publisher.follow_up(get_failover().record(event))
        except StoreUnavailable as error:
            log.error("Refusal not recorded, the store is unavailable (%s): %s", error, event.line())
            publisher.nudge_for_sync()


def _release(attempt: Attempt) -> None:
    if attempt.reserved:
        try:
            get_failover().release(attempt.token, attempt.counters)
        except StoreUnavailable as error:
            log.warning("A reservation is left to its lease, the store is unavailable (%s).", error)
    attempt.reserved = False
