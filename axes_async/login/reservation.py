"""Reservations of attempts: made before a password is looked at, and released if nothing else settles them.

What a settled attempt counts for is decided in ``settlement``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import takewhile
from random import uniform
from types import FrameType
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from axes_async import telemetry
from axes_async.client.display import client_str
from axes_async.client.exemptions import Exemption, count_refusal, exemption_of
from axes_async.client.identity import receive
from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.conf.lockout_rules import Credentials
from axes_async.counters.events import Kind, worth_a_row
from axes_async.errors import StoreUnavailable
from axes_async.login import audit
from axes_async.login.attempt import Attempt
from axes_async.login.frames import current_task
from axes_async.login.renewal import keep
from axes_async.login.state import AxesState, current, served, state_of
from axes_async.login.steps import (
    client_and_counters,
    event_of,
    in_store,
    mark_locked,
    new_attempt,
    without,
)
from axes_async.stores.factory import get_failover
from axes_async.stores.results import PERMANENT, Verdict
from axes_async.stores.step import Step, StepKind

log = logging.getLogger(__name__)

PAUSE = 0.02
"""Seconds until the first in a line looks again at a busy counter: a password check takes 50 to 500 ms."""

LAST = 15
"""The place in the line from which on nobody looks less often: a lockout is to be noticed."""

NO_LEASE = 0
"""Where no request ends, nothing could release a reservation, so the attempt is only checked."""


def reserve(request: HttpRequest | None, credentials: Credentials, caller: FrameType | None = None) -> Attempt | None:
    """Reserve one try of a password, waiting up to ``AXES_RESERVE_WAIT`` while other attempts leave no room.

    Return the attempt, which is ``denied`` if there is no reservation; ``None`` while ``AXES_ENABLED`` is off.

    :param caller: the code that goes on with the attempt, if it is one piece: it has others look at the password, say.
    """
    asking = _Asking(request, credentials, caller)
    try:
        while pause := asking.ask():
            time.sleep(pause)
    finally:
        asking.leave_line()
    return asking.attempt


async def areserve(
    request: HttpRequest | None, credentials: Credentials, caller: FrameType | None = None
) -> Attempt | None:
    """Do as ``reserve``, without holding up the event loop."""
    asking = _Asking(request, credentials, caller, asyncio.current_task())
    try:
        pause = await sync_to_async(asking.ask)()
        while pause:
            await asyncio.sleep(pause)
            pause = await sync_to_async(asking.ask)()
    except BaseException:  # Also a client that went away: the thread may be about to make the reservation.
        asking.is_given_up = True
        if asking.attempt is not None:
            await sync_to_async(give_back)(asking.attempt)
        raise
    finally:
        asking.leave_line()
    return asking.attempt


def give_back(attempt: Attempt) -> None:
    """Release what an attempt holds. It ends first: a reservation that is made only now finds that it has."""
    if not attempt.settled:
        attempt.settle(recorded=False)
    if not attempt.recorded:
        _release(attempt)


def release(attempts: Iterable[Attempt], *, closer: asyncio.Task[Any] | None = None) -> None:
    """Release what ``attempts`` still hold: they were neither a failure nor a login.

    Who is still at work on one settles it later.

    :param closer: the task that waits for this, if it is called in a thread.
    """
    for attempt in _ended(attempts, closer or current_task()):
        give_back(attempt)


async def arelease(attempts: Iterable[Attempt]) -> None:
    """Do as ``release``, without holding up the event loop."""
    for attempt in _ended(attempts, current_task()):
        if attempt.reserved:
            await sync_to_async(give_back)(attempt)
        else:
            give_back(attempt)


def release_joined(attempts: Iterable[Attempt]) -> None:
    """Do as ``release``, at the end of a request under WSGI: the threads of its tasks have ended before it."""
    attempts = [*attempts]
    for attempt in attempts:
        attempt.given_up = False
        if attempt.task is not None and attempt.task.done():
            attempt.task = attempt.caller = None
    release(attempts)


def _ended(attempts: Iterable[Attempt], task: asyncio.Task[Any] | None) -> list[Attempt]:
    """Return those of ``attempts`` that hold what nobody needs any more, ``task`` neither.

    What a check holds that was given up is left to its lease: no other check starts in its place meanwhile. Where the
    request lasts as long as the check, its end releases that.
    """
    state, ended = current.get(), []
    for attempt in attempts:
        if attempt.settled or attempt.is_at_work(but=task):
            continue
        attempt.given_up = attempt.is_cut_off
        if not attempt.given_up:
            ended.append(attempt)
        elif state is None or not state.joins:
            attempt.settle(recorded=False)
    return ended


_lines: dict[str | None, list[_Asking]] = {}
"""Who waits in this process, by address: the earlier one came, the more often one asks."""


class _Asking:
    """Asks the store for the reservation of one try, until the answer is clear or the wait is over."""

    def __init__(
        self,
        request: HttpRequest | None,
        credentials: Credentials,
        caller: FrameType | None = None,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        self.request, self.credentials, self.caller, self.task = served(request), credentials, caller, task
        self.settings, self.state = get_settings(), state_of(request)
        self.give_up, self.has_waited = 0.0, False
        self.attempt: Attempt | None = None
        self.is_given_up = False

    def ask(self) -> float:
        """Ask once; return how many seconds to wait before the next time, or 0 once the attempt is decided."""
        settings, state = self.settings, self.state
        if self.attempt is None and settings.enabled:
            self._begin()
        attempt = self.attempt
        if attempt is None or attempt.verdict is not None:
            return 0.0
        if attempt.is_abandoned:
            state.busy = attempt.decide(Verdict.BUSY) is Verdict.BUSY
            _release(attempt)  # It may hold some from before it was widened.
            return 0.0
        attempt.reserved_at = time.monotonic()
        extend, event = settings.reset_cool_off_on_failure_during_lockout, None
        if settings.enable_access_failure_log or extend:
            event = event_of(Kind.BLOCKED, attempt.id, attempt.client, self.request, attempt.counters)
        lease = NO_LEASE if state.detached else settings.lease_ms
        step = Step(StepKind.RESERVE, attempt.token, attempt.counters, event=event, lease=lease, extend=extend)
        generation = get_failover().generation
        result = in_store("Attempt turned away", step)
        if result is None:
            state.unavailable = True
            return 0.0
        if result.verdict is Verdict.BUSY and not self.is_given_up and (wait := self._wait(attempt)):
            return wait
        if self.has_waited or result.verdict is Verdict.BUSY:
            telemetry.count("busy_waits", "given_up" if result.verdict is Verdict.BUSY else "ended")
        verdict = attempt.decide(result.verdict)
        if result.verdict is Verdict.ALLOWED:
            is_kept, attempt.held_in = attempt.reserved, generation or get_failover().generation
            if not is_kept and not state.detached:
                keep(state, attempt)
        if attempt.settled or self.is_given_up or verdict is not Verdict.ALLOWED:
            _release(attempt)
        if state.detached and attempt.reserved:
            state.drop(attempt)
        state.busy = verdict is Verdict.BUSY
        if result.verdict is Verdict.LOCKED:
            mark_locked(state, attempt.counters, result)
        if result.repeats:
            who, limit = (attempt.id, attempt.client, self.request, attempt.counters), state.failure_limit
            audit.write("authn_login_fail_max", *who, limit, limit=limit, repeats=result.repeats)
        return 0.0

    def _wait(self, attempt: Attempt) -> float:
        """Return how long to wait at this place in the line; 0 if it is over, which it never is before a last look."""
        left = self.give_up - time.monotonic()
        if left <= 0:
            return 0.0
        self.has_waited = True
        line = _lines.setdefault(attempt.client.canonical.get("ip_address"), [])
        if self not in line:
            line.append(self)
        if self.is_given_up:  # Since then, by another thread, which may have left the line already.
            self.leave_line()
        place = 1 + sum(1 for _ in takewhile(lambda each: each is not self, line))
        pause = PAUSE * min(place, LAST)
        return min(left, uniform(pause / 2, pause))  # noqa: S311  (spreads the load, hides nothing)

    def leave_line(self) -> None:
        """Let the others move up."""
        if self.attempt is None or not self.has_waited:
            return
        address = self.attempt.client.canonical.get("ip_address")
        with suppress(KeyError, ValueError):
            _lines[address].remove(self)
            if not _lines[address]:
                del _lines[address]

    def _begin(self) -> None:
        """Begin an attempt, or widen the one that this try may share."""
        settings, state, request, credentials = self.settings, self.state, self.request, self.credentials
        client, counters = client_and_counters(settings, request, credentials)
        if credentials is None:
            receive(request)
        exemption = exemption_of(settings, request, credentials, client)
        self.give_up = time.monotonic() + settings.reserve_wait
        state.clear()
        state.client = client
        attempt = state.own_attempt
        if attempt is not None and not state.detached and attempt.is_shared_with(self.task):
            # After an attempt that needed no reservations, those on its counters are still to be made. Those of a block
            # that has waited, for a body that trickles in, say, are renewed: the check has half a lease at least.
            is_old = time.monotonic() - attempt.reserved_at > settings.reserve_lease / 2
            if is_old or attempt.exemption is not exemption or not set(counters) <= set(attempt.counters):
                attempt.verdict = None
            attempt.counters = (*without(attempt.counters, counters), *counters)
            attempt.client, attempt.own = client, counters
        else:
            if attempt is not None and attempt.denied:
                _release(attempt)  # It may hold some from before it was widened.
                state.drop(attempt)
            attempt = new_attempt(client, counters)
            state.add(attempt)
        self.attempt, attempt.task, attempt.given_up = attempt, self.task, False
        attempt.caller = None if state.detached else self.caller
        attempt.exemption, attempt.informed = exemption, credentials is not None
        if exemption is Exemption.REFUSED:
            _turn_away(request, state, attempt)
        elif exemption is not Exemption.NONE or not any(counter.rule.limit for counter in attempt.counters):
            attempt.verdict = Verdict.ALLOWED


def _turn_away(request: HttpRequest | None, state: AxesState, attempt: Attempt) -> None:
    """Turn away an attempt of a client that is refused for what it is; of a flood, few are recorded.

    It holds no reservation: an address is refused for all attempts of a request, or for none.
    """
    attempt.verdict = Verdict.LOCKED
    state.mark_locked(PERMANENT)
    repeats = count_refusal(attempt.client, now_ms())
    if worth_a_row(repeats):
        log.warning("Refused, by its address: %s.", client_str(attempt.client, request, attempt.counters))
        if get_settings().enable_access_failure_log:
            event = event_of(Kind.BLOCKED, attempt.id, attempt.client, request).applied((), at=0, repeats=repeats)
            in_store("Refusal not recorded", Step(StepKind.RECORD, event=event))


def _release(attempt: Attempt) -> None:
    if attempt.reserved:
        try:
            get_failover().release(attempt.token, attempt.counters)
        except StoreUnavailable as error:
            log.warning("A reservation is left to its lease, the store is unavailable (%s).", error)
    attempt.held_in = None
