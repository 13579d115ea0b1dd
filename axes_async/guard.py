"""The login path: client, rules and store brought together, for every way in.

``reserve`` before a password is looked at; ``fail`` or ``succeed`` when it has been; ``release`` for what is left open.
Everything else in the package calls these and decides nothing of its own.
"""

from __future__ import annotations

import logging
from contextvars import Token
from types import TracebackType
from typing import Self

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from axes_async import audit, outbox, signals
from axes_async.audit import Occasion
from axes_async.client import Client, client_of, is_masked, source_of
from axes_async.client_str import client_str
from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.errors import AttemptDenied, StoreUnavailable
from axes_async.events import Kind, new_id
from axes_async.exemptions import Treatment, treatment_of
from axes_async.policy import Counter
from axes_async.reservation import (
    REFUSED,
    arelease,
    areserve,
    client_behind,
    client_of_user,
    credentials_of_user,
    event_of,
    mark_locked,
    new_attempt,
    release,
    reserve,
    without,
)
from axes_async.rule_readers import Credentials
from axes_async.rules import counters_of
from axes_async.state import Attempt, AxesState, end_block, enter_block, is_detached, leave, state_of
from axes_async.store import get_failover
from axes_async.stores.base import Outcome

__all__ = ["arelease", "areserve", "attempt", "fail", "log_out", "look", "release", "reserve", "succeed"]

log = logging.getLogger(__name__)


def fail(request: HttpRequest | None, credentials: Credentials) -> None:
    """Count a failure, once per attempt: on its reservations if there are any, else directly.

    Sends ``user_locked_out`` if this failure set the lockout; whatever its receivers raise is raised.
    """
    settings = get_settings()
    if not settings.enabled:
        return
    state = state_of(request)
    held = state.attempt
    known = held is not None and (held.client.given == source_of(request, credentials) or is_masked(credentials))
    client = held.client if held is not None and known else client_behind(request, credentials)
    if held is not None and held.denied and held.client.canonical == client.canonical:
        # Turned away before the password was looked at: it is recorded, and it is no failure.
        state.attempt = None if state.detached else held
        return
    counters = held.own if held is not None and known else counters_of(settings, request, credentials, client)
    if held is not None and known and (held.informed or credentials is None):
        treatment = held.treatment
    else:
        treatment = treatment_of(settings, request, credentials, client)
    if treatment is Treatment.EXEMPT:
        state.client = client
        release(state)
        if log.isEnabledFor(logging.INFO):
            log.info("The failure of an exempt client is not counted: %s.", client_str(client, request, counters))
        return
    attempt = _open_attempt(state) or new_attempt(client, counters)
    elsewhere = without(attempt.counters, counters)
    state.attempt, state.client = attempt, client
    attempt.settled = attempt.told = True
    event = event_of(Kind.FAILED, attempt.id, client)
    occasion = Occasion(client, event.id, request, counters)
    try:
        outcome = get_failover().fail(
            attempt.token,
            counters,
            elsewhere,
            event,
            now=now_ms(),
            lease=settings.lease_ms,
            extend=settings.reset_cool_off_on_failure_during_lockout,
            held=attempt.reserved,
        )
    except StoreUnavailable as error:
        log.error("Failure not counted, the store is unavailable (%s): %s", error, event.line())
        audit.login_failed(occasion)
        return
    if outcome.locked_until and treatment is not Treatment.UNGUARDED:
        mark_locked(state, counters, outcome, request)
    outbox.follow_up(outcome)
    audit.login_failed(occasion)  # After the count: AXES_CLIENT_STR_CALLABLE may raise.
    if outcome.newly_locked:
        audit.locked_out(occasion)
        signals.user_locked_out.send(
            sender=__name__, request=request, username=client.username, ip_address=client.ip_address
        )


def succeed(request: HttpRequest | None, username: object, *, session_hash: str = "") -> str:
    """Record a login and give its reservations back; return the id of the login's event.

    Clears what ``AXES_RESET_ON_SUCCESS`` names, but for counters that are locked.

    :param username: the user's name, of whatever type ``get_username()`` returns: a number, say, or a telephone's.
    """
    settings = get_settings()
    if not settings.enabled:
        return ""
    state = state_of(request)
    client = client_of_user(request, username)
    held = _open_attempt(state)
    if held is not None and held.client.canonical == client.canonical:
        counters = held.own
    else:
        counters = counters_of(settings, request, credentials_of_user(username), client)
    attempt = held or new_attempt(client, counters)
    attempt.settled = attempt.told = True
    state.client = client
    every = (*attempt.counters, *without(counters, attempt.counters))
    clear: tuple[Counter, ...] = ()
    if settings.reset_on_success:
        clear = without(every, without(every, (*attempt.clearable, *counters)))
    if settings.reset_on_success == "account":
        clear = tuple(counter for counter in clear if "username" in counter.rule.parameters)
    event = event_of(Kind.LOGGED_IN, attempt.id, client, session=session_hash)
    if settings.disable_access_log and not clear and held is None:
        audit.logged_in(Occasion(client, event.id, request, counters), retries=0)
        return event.id
    retries = 0
    try:
        outcome = get_failover().succeed(
            attempt.token,
            every,
            clear,
            event,
            now=now_ms(),
            lease=settings.lease_ms,
            always=not settings.disable_access_log,
            held=attempt.reserved,
        )
    except StoreUnavailable as error:
        log.error("Login not recorded, the store is unavailable (%s): %s", error, event.line())
    else:
        outbox.follow_up(outcome)
        retries = _retries(counters, outcome)
    audit.logged_in(Occasion(client, event.id, request, counters), retries=retries)
    return event.id


def _open_attempt(state: AxesState) -> Attempt | None:
    """Return the attempt that is to be settled, if one is open; one outside of any request may be of hours ago."""
    attempt = state.attempt
    return attempt if attempt is not None and attempt.open and not state.detached else None


def _retries(counters: tuple[Counter, ...], outcome: Outcome) -> int:
    """Return how many failures of the client stood: of its name where names are counted, else of what is counted."""
    if not outcome.standing:
        return 0
    named = [counter for counter in counters if "username" in counter.rule.parameters]
    return max((outcome.standing.get(counter.digest, 0) for counter in named or counters), default=0)


def log_out(request: HttpRequest | None, username: object, *, session_hash: str = "", login: str = "") -> None:
    """Record a logout; ``login`` is the id that ``succeed`` returned, if it is known."""
    settings = get_settings()
    if not settings.enabled:
        return
    client = client_of(request, username)
    event = event_of(Kind.LOGGED_OUT, new_id(now_ms()), client, session=session_hash, login=login)
    audit.logged_out(Occasion(client, event.id, request))
    if settings.disable_access_log:
        return
    try:
        outbox.follow_up(get_failover().record(event))
    except StoreUnavailable as error:
        log.error("Logout not recorded, the store is unavailable (%s): %s", error, event.line())


def look(request: HttpRequest, credentials: Credentials = None) -> AxesState:
    """Return the state of ``request``, marked as locked out if its client is; counts and records nothing."""
    settings = get_settings()
    state = state_of(request)
    if settings.enabled and not state.denied:
        client = client_behind(request, credentials)
        counters = counters_of(settings, request, credentials, client)
        held = state.attempt
        treatment = held.treatment if held is not None else treatment_of(settings, request, credentials, client)
        if treatment is Treatment.REFUSED:
            state.client = client
            mark_locked(state, (), REFUSED, request)
        if treatment is not Treatment.GUARDED:
            return state
        try:
            outcome = get_failover().peek(counters, now=now_ms())
        except StoreUnavailable as error:
            log.error("Lockout not checked, the store is unavailable (%s).", error)
            state.unavailable = True
        else:
            if outcome.locked_until:
                state.client = client
                mark_locked(state, counters, outcome, request)
    return state


class attempt:  # noqa: N801  (used as a context manager, which are named in lower case)
    """Protect a password check of one's own: ``with guard.attempt(request, credentials):``, or ``async with``.

    Inside the block the attempt holds its place. Django's ``user_login_failed`` and ``user_logged_in`` signals settle
    it; a module that sends none calls ``failed()`` or ``logged_in(username)``, or their async twins
    ``afailed()`` and ``alogged_in(username)``. Whatever is left open at the end of the
    block, also by an exception, is given back and counts as nothing. A block within another one shares its place.

    :param request: the request, or ``None``.
    :param credentials: what is being tried; the name under the user model's ``USERNAME_FIELD`` or ``username``.
    :raises AttemptDenied: on entering, if the client is locked out or no place came free. It is a
        ``PermissionDenied``; uncaught, ``AxesMiddleware`` answers with the lockout response.
    """

    def __init__(self, request: HttpRequest | None, credentials: Credentials) -> None:
        """Keep what is needed on entering."""
        self.request = request
        self.credentials = credentials
        self._reserved: Attempt | None = None
        self._around: Client | None = None
        self._block: Token[AxesState | None] | None = None

    def failed(self) -> None:
        """Count a failure, unless a signal has settled the attempt already."""
        if self._reserved is None or not self._reserved.told:
            fail(self.request, self.credentials)

    def logged_in(self, username: object) -> None:
        """Record a login of ``username``, unless a signal has settled the attempt already."""
        if self._reserved is None or not self._reserved.told:
            succeed(self.request, username)

    async def afailed(self) -> None:
        """Do as ``failed``, without holding up the event loop."""
        await sync_to_async(self.failed)()

    async def alogged_in(self, username: object) -> None:
        """Do as ``logged_in``, without holding up the event loop."""
        await sync_to_async(self.logged_in)(username)

    def __enter__(self) -> Self:
        """Reserve, or raise ``AttemptDenied``."""
        self._open_block()
        try:
            reserved = reserve(self.request, self.credentials)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self._entered(reserved)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give back what is still open."""
        if self._ended():
            release(state_of(self.request))
        self._close_block()

    async def __aenter__(self) -> Self:
        """Reserve, or raise ``AttemptDenied``."""
        self._open_block()
        try:
            reserved = await areserve(self.request, self.credentials)
        except BaseException:  # A client that went away, too: its place may have come all the same.
            await self.__aexit__(None, None, None)
            raise
        return self._entered(reserved)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give back what is still open."""
        if self._ended():
            await arelease(state_of(self.request))
        else:
            state_of(self.request).turns.back()
        self._close_block()

    def _open_block(self) -> None:
        """Without a request, have the block stand for one: at its end, a place can be given back."""
        if self.request is None and is_detached():
            _, self._block = enter_block()
        held = state_of(self.request).attempt
        self._around = held.client if held is not None else None

    def _close_block(self) -> None:
        if self._block is not None:
            leave(self._block)
            self._block = None

    def _entered(self, reserved: Attempt | None) -> Self:
        self._reserved = reserved
        if reserved is not None and reserved.denied:
            self._close_block()
            raise AttemptDenied("This client may not try a password now.")
        if reserved is not None:
            reserved.blocks += 1
        return self

    def _ended(self) -> bool:
        """Note the end of the block; return whether no block around it shares its place."""
        reserved = self._reserved
        if reserved is not None and reserved.blocks > 1 and reserved.client != self._around:
            reserved.told = False  # Of this block's client; that of the block around it has yet to be told of.
        return end_block(state_of(self.request), reserved)
