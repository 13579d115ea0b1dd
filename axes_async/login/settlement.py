"""What became of an attempt: a failure that counts, a login that is recorded, a logout.

Each settles the reservations that were made for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from django.contrib.auth import get_user_model
from django.http import HttpRequest

from axes_async import signals
from axes_async.client.display import client_str
from axes_async.client.exemptions import Exemption, exemption_of
from axes_async.client.identity import Client, client_of, is_masked, source_of
from axes_async.client.normalize import as_text
from axes_async.clock import as_datetime, now_ms
from axes_async.conf import AxesSettings, get_settings
from axes_async.conf.lockout_rules import Credentials
from axes_async.counters.events import Kind, new_id
from axes_async.counters.rules import Counter
from axes_async.login import audit
from axes_async.login.attempt import Attempt
from axes_async.login.reservation import give_back
from axes_async.login.rules_in_force import counters_of
from axes_async.login.state import AxesState, served, state_of
from axes_async.login.steps import (
    by_name,
    client_and_counters,
    client_behind,
    event_of,
    in_store,
    locking_rule,
    mark_locked,
    new_attempt,
    without,
)
from axes_async.stores.results import PERMANENT, StepResult
from axes_async.stores.step import Step, StepKind

log = logging.getLogger(__name__)


def fail(request: HttpRequest | None, credentials: Credentials) -> None:
    """Count a failure, once per attempt: on its reservations if there are any, else directly.

    Sends ``user_locked_out`` if this failure set the lockout; whatever its receivers raise is raised.
    """
    settings = get_settings()
    if not settings.enabled:
        return
    state, request = state_of(request), served(request)
    attempt = state.attempt
    known = attempt
    if attempt and attempt.client.given != source_of(request, credentials) and not is_masked(credentials):
        known = None  # It is of another name.
    client, counters = (known.client, known.own) if known else client_and_counters(settings, request, credentials)
    if attempt and attempt.denied and attempt.client.canonical == client.canonical:
        # Turned away before the password was looked at: it is recorded, and it is no failure.
        if state.detached:
            state.drop(attempt)
        return
    if known and (known.informed or credentials is None):
        exemption = known.exemption
    else:
        exemption = exemption_of(settings, request, credentials, client)
    state.client = client
    if exemption in {Exemption.ALL, Exemption.REFUSED}:
        if attempt:
            give_back(attempt)
        if log.isEnabledFor(logging.INFO):
            log.info("The failure of an exempt client is not counted: %s.", client_str(client, request, counters))
        return
    attempt = _open_attempt(state)
    if attempt is None:
        attempt = new_attempt(client, counters)
        state.add(attempt)
    attempt.settle(recorded=True)
    elsewhere = () if counters is attempt.counters else without(attempt.counters, counters)
    settled: list[tuple[Client, tuple[Counter, ...], str, StepResult | None]] = []
    for named, own in by_name(client, counters):
        event = event_of(Kind.FAILED, new_id(now_ms()) if settled else attempt.id, named, request, own)
        step = Step(
            StepKind.FAIL,
            attempt.token,
            own,
            release=() if settled else elsewhere,
            event=event,
            extend=settings.reset_cool_off_on_failure_during_lockout,
            held_in=attempt.held_in,
        )
        result = in_store(
            "Failure not counted",
            step,
            reserved_at=attempt.reserved_at,
            tell=partial(_tell_of_lock, None, named, own, event.id),  # A request that waits keeps its body in memory.
        )
        if result is not None and result.locked_until and exemption is not Exemption.LOCKOUT:
            mark_locked(state, own, result)
        settled.append((named, own, event.id, result))
    # After the counts: AXES_CLIENT_STR_CALLABLE may raise.
    for named, own, event_id, result in settled:
        audit.write("authn_login_fail", event_id, named, request, own)
        if result is not None:
            _tell_of_lock(request, named, own, event_id, result)


def succeed(request: HttpRequest | None, username: object, *, session_hash: str = "") -> str:
    """Record a login and release its reservations; return the id of the login's event.

    Clears what ``AXES_RESET_ON_SUCCESS`` names, but for counters that are locked.

    :param username: the user's name, of whatever type ``get_username()`` returns: a number, say, or a telephone's.
    """
    settings = get_settings()
    if not settings.enabled:
        return ""
    state, request = state_of(request), served(request)
    credentials = {settings.username_form_field or get_user_model().USERNAME_FIELD: as_text(username)}
    client = client_behind(request, credentials)
    if settings.username_callable is not None:
        # Rows show the user; counters have what the callable makes of the name, as they have of names that are tried.
        client = replace(client, username=client_of(request, username, seen=client).username)
    held = _open_attempt(state)
    if held is not None and held.client.canonical == client.canonical and not held.client.others:
        counters = held.own
    else:
        counters = counters_of(settings, request, credentials, client)
    attempt = held or new_attempt(client, counters)
    attempt.settle(recorded=True)
    state.client = client
    every = (*attempt.counters, *without(counters, attempt.counters))
    clear = _cleared(settings, attempt, client, counters, every)
    event = event_of(Kind.LOGGED_IN, attempt.id, client, request, every, session=session_hash)
    retries = 0
    if clear or held is not None or not settings.disable_access_log:
        step = Step(
            StepKind.SUCCEED,
            attempt.token,
            every,
            event=event,
            clear=clear,
            always=not settings.disable_access_log,
            held_in=attempt.held_in,
        )
        result = in_store("Login not recorded", step, reserved_at=attempt.reserved_at)
        if result is not None:
            retries = _retries(every, counters, result.failures)
    if retries:
        audit.write("authn_login_successafterfail", event.id, client, request, counters, retries, retries=retries)
    else:
        audit.write("authn_login_success", event.id, client, request, counters)
    return event.id


def log_out(request: HttpRequest | None, username: object, *, session_hash: str = "", login: str = "") -> None:
    """Record a logout; ``login`` is the id that ``succeed`` returned, if it is known."""
    settings = get_settings()
    if not settings.enabled:
        return
    request = served(request)
    client = client_of(request, username)
    event = event_of(Kind.LOGGED_OUT, new_id(now_ms()), client, request, session=session_hash, login=login)
    audit.write("session_expired", event.id, client, request, details="logout")
    if not settings.disable_access_log:
        in_store("Logout not recorded", Step(StepKind.RECORD, event=event))


def _tell_of_lock(
    request: HttpRequest | None, client: Client, counters: tuple[Counter, ...], event_id: str, result: StepResult
) -> None:
    """Tell whoever listens that a failure has set a lockout, if it has."""
    if result.newly_locked:
        audit.write("authn_login_lock", event_id, client, request, counters, "maxretries")
        signals.user_locked_out.send(
            sender=__name__,
            request=request,
            username=client.username,
            ip_address=client.ip_address,
            rule=locking_rule(counters, result),
            limit=result.limit,
            end=None if result.locked_until == PERMANENT else as_datetime(result.locked_until),
        )


def _open_attempt(state: AxesState) -> Attempt | None:
    """Return the attempt that is to be settled, if one is open; one outside of any request may be of hours ago."""
    attempt = state.attempt
    return attempt if attempt is not None and attempt.open and not state.detached else None


def _cleared(
    settings: AxesSettings, attempt: Attempt, client: Client, counters: tuple[Counter, ...], every: tuple[Counter, ...]
) -> tuple[Counter, ...]:
    """Return those of ``every`` counter that a login clears: of its name, and of the one that credentials have named.

    A name that a form happened to hold is none of them. Of several in the credentials, one may be that of an account
    whose password was not looked at. A name that may be somebody else's, too, clears no counter of names.
    """
    if not settings.reset_on_success:
        return ()
    tried = attempt.own if attempt.informed and not attempt.client.others else ()
    named = {
        counter.digest
        for who, theirs in ((client, counters), (attempt.client, tried))
        for counter in theirs
        if who.is_plain or "username" not in counter.rule.parameters
    }
    if settings.reset_on_success == "account":
        every = tuple(counter for counter in every if "username" in counter.rule.parameters)
    return tuple(counter for counter in every if counter.digest in named)


def _retries(every: tuple[Counter, ...], counters: tuple[Counter, ...], failures: Sequence[int]) -> int:
    """Return how many failures counted against the client: its name where names are counted, else what is counted."""
    counted = {counter.digest: count for counter, count in zip(every, failures, strict=False)}
    named = [counter for counter in counters if "username" in counter.rule.parameters]
    return max((counted.get(counter.digest, 0) for counter in named or counters), default=0)
