"""What became of an attempt: a failure that counts, a login that is recorded, a logout.

Each settles the places that were reserved for it; ``guard`` is what the rest of the package calls.
"""

from __future__ import annotations

import logging

from django.http import HttpRequest

from axes_async import signals
from axes_async.client.display import client_str
from axes_async.client.exemptions import Treatment, treatment_of
from axes_async.client.identity import client_of, is_masked, source_of
from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.conf.rules import Credentials
from axes_async.counters.events import Kind, new_id
from axes_async.counters.rules import Counter
from axes_async.delivery import publisher as outbox
from axes_async.errors import StoreUnavailable
from axes_async.login import audit
from axes_async.login.attempt import (
    client_behind,
    client_of_user,
    credentials_of_user,
    event_of,
    mark_locked,
    new_attempt,
    without,
)
from axes_async.login.audit import Occasion
from axes_async.login.reservation import release
from axes_async.login.rules import counters_of
from axes_async.login.state import Attempt, AxesState, state_of
from axes_async.stores.factory import get_failover
from axes_async.stores.results import Outcome

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
