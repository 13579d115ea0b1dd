"""What became of an attempt: a failure that counts, a login that is recorded, a logout.

Each settles the reservations that were made for it.
"""

from __future__ import annotations

import logging

from django.http import HttpRequest

from axes_async import signals
from axes_async.client.display import client_str
from axes_async.client.exemptions import Exemption, exemption_of
from axes_async.client.identity import client_of, is_masked, source_of
from axes_async.clock import now_ms
from axes_async.conf import AxesSettings, get_settings
from axes_async.conf.lockout_rules import Credentials
from axes_async.counters.events import Kind, new_id
from axes_async.counters.rules import Counter
from axes_async.delivery import publisher
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
from axes_async.login.audit import LogContext
from axes_async.login.reservation import release
from axes_async.login.rules import counters_of
from axes_async.login.state import Attempt, AxesState, state_of
from axes_async.stores.factory import get_failover
from axes_async.stores.results import StepResult

log = logging.getLogger(__name__)


def fail(request: HttpRequest | None, credentials: Credentials) -> None:
    """Count a failure, once per attempt: on its reservations if there are any, else directly.

    Sends ``user_locked_out`` if this failure set the lockout; whatever its receivers raise is raised.
    """
    settings = get_settings()
    if not settings.enabled:
        return
    state = state_of(request)
    attempt = state.attempt
    is_known = attempt is not None and (
        attempt.client.given == source_of(request, credentials) or is_masked(credentials)
    )
    if attempt is not None and is_known:
        client, counters = attempt.client, attempt.own
    else:
        client = client_behind(request, credentials)
        counters = counters_of(settings, request, credentials, client)
    if attempt is not None and attempt.denied and attempt.client.canonical == client.canonical:
        # Turned away before the password was looked at: it is recorded, and it is no failure.
        if state.detached:
            state.drop(attempt)
        return
    if attempt is not None and is_known and (attempt.informed or credentials is None):
        exemption = attempt.exemption
    else:
        exemption = exemption_of(settings, request, credentials, client)
    state.client = client
    if exemption is Exemption.ALL:
        if attempt is not None:
            release([attempt])
        if log.isEnabledFor(logging.INFO):
            log.info("The failure of an exempt client is not counted: %s.", client_str(client, request, counters))
        return
    attempt = _open_attempt(state)
    if attempt is None:
        attempt = new_attempt(client, counters)
        state.add(attempt)
    attempt.settled = attempt.recorded = True
    elsewhere = () if counters is attempt.counters else without(attempt.counters, counters)
    event = event_of(Kind.FAILED, attempt.id, client)
    context = LogContext(client, event.id, request, counters)
    try:
        result = get_failover().fail(
            attempt.token,
            counters,
            elsewhere,
            event,
            extend=settings.reset_cool_off_on_failure_during_lockout,
            held=attempt.reserved,
        )
    except StoreUnavailable as error:
        log.error("Failure not counted, the store is unavailable (%s): %s", error, event.line())
        publisher.nudge_for_sync()
        audit.login_failed(context)
        return
    if result.locked_until and exemption is not Exemption.LOCKOUT:
        mark_locked(state, counters, result, request)
    publisher.follow_up(result)
    audit.login_failed(context)  # After the count: AXES_CLIENT_STR_CALLABLE may raise.
    if result.newly_locked:
        audit.locked_out(context)
        signals.user_locked_out.send(
            sender=__name__, request=request, username=client.username, ip_address=client.ip_address
        )


def succeed(request: HttpRequest | None, username: object, *, session_hash: str = "") -> str:
    """Record a login and release its reservations; return the id of the login's event.

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
    attempt.settled = attempt.recorded = True
    state.client = client
    every = (*attempt.counters, *without(counters, attempt.counters))
    clear = _cleared(settings, attempt, counters, every)
    event = event_of(Kind.LOGGED_IN, attempt.id, client, session=session_hash)
    context = LogContext(client, event.id, request, counters)
    if settings.disable_access_log and not clear and held is None:
        audit.logged_in(context, retries=0)
        return event.id
    retries = 0
    try:
        result = get_failover().succeed(
            attempt.token,
            every,
            clear,
            event,
            always=not settings.disable_access_log,
            held=attempt.reserved,
        )
    except StoreUnavailable as error:
        log.error("Login not recorded, the store is unavailable (%s): %s", error, event.line())
        publisher.nudge_for_sync()
    else:
        publisher.follow_up(result)
        retries = _retries(every, counters, result)
    audit.logged_in(context, retries=retries)
    return event.id


def log_out(request: HttpRequest | None, username: object, *, session_hash: str = "", login: str = "") -> None:
    """Record a logout; ``login`` is the id that ``succeed`` returned, if it is known."""
    settings = get_settings()
    if not settings.enabled:
        return
    client = client_of(request, username)
    event = event_of(Kind.LOGGED_OUT, new_id(now_ms()), client, session=session_hash, login=login)
    audit.logged_out(LogContext(client, event.id, request))
    if settings.disable_access_log:
        return
    try:
        publisher.follow_up(get_failover().record(event))
    except StoreUnavailable as error:
        log.error("Logout not recorded, the store is unavailable (%s): %s", error, event.line())
        publisher.nudge_for_sync()


def _open_attempt(state: AxesState) -> Attempt | None:
    """Return the attempt that is to be settled, if one is open; one outside of any request may be of hours ago."""
    attempt = state.attempt
    return attempt if attempt is not None and attempt.open and not state.detached else None


def _cleared(
    settings: AxesSettings, attempt: Attempt, counters: tuple[Counter, ...], every: tuple[Counter, ...]
) -> tuple[Counter, ...]:
    """Return those of ``every`` counter that a login clears, of those that its credentials have named."""
    if not settings.reset_on_success:
        return ()
    named = {counter.digest for counter in (*attempt.clearable, *counters)}
    if settings.reset_on_success == "account":
        every = tuple(counter for counter in every if "username" in counter.rule.parameters)
    return tuple(counter for counter in every if counter.digest in named)


def _retries(every: tuple[Counter, ...], counters: tuple[Counter, ...], result: StepResult) -> int:
    """Return how many failures counted against the client: its name where names are counted, else what is counted."""
    failures = {counter.digest: count for counter, count in zip(every, result.failures, strict=False)}
    named = [counter for counter in counters if "username" in counter.rule.parameters]
    return max((failures.get(counter.digest, 0) for counter in named or counters), default=0)
