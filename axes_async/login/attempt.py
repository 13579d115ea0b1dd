"""What an attempt is made of: its client, its event, and what the state of a request tells of its lockout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from django.contrib.auth import get_user_model
from django.http import HttpRequest

from axes_async.client.identity import Client, client_of, identify
from axes_async.client.normalize import as_text
from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.conf.lockout_rules import Credentials
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter
from axes_async.login.rules import longest_lockout
from axes_async.login.state import Attempt, AxesState, flag, state_of
from axes_async.stores.results import PERMANENT, StepResult


def client_behind(request: HttpRequest | None, credentials: Credentials) -> Client:
    """Return the client behind ``request`` and ``credentials``; its address is worked out once for a request."""
    if request is None:
        return identify(None, credentials)
    state = state_of(request)
    client = identify(request, credentials, seen=state.origin)
    state.origin = state.origin or client
    return client


def client_of_user(request: HttpRequest | None, username: object) -> Client:
    """Return the client behind ``request``, known to be the user of this name: so rows show it.

    Counters have what ``AXES_USERNAME_CALLABLE`` makes of it, as they have of names that are tried.
    """
    client = client_behind(request, credentials_of_user(username))
    if get_settings().username_callable is None:
        return client
    return replace(client, username=client_of(request, username, seen=client).username)


def credentials_of_user(username: object) -> dict[str, str | None]:
    """Return what stands for the credentials of a user who is known by name."""
    return {get_settings().username_form_field or get_user_model().USERNAME_FIELD: as_text(username)}


def new_attempt(client: Client, counters: tuple[Counter, ...]) -> Attempt:
    """Return an attempt that begins now, and holds no reservation yet."""
    return Attempt(id=new_id(now_ms()), client=client, counters=counters, own=counters)


def event_of(kind: Kind, event_id: str, client: Client, **extra: str) -> AttemptEvent:
    """Return the event that tells of ``client``; of ``extra``, what is empty is left out."""
    return AttemptEvent(
        kind=kind,
        id=event_id,
        username=client.username,
        ip_address=client.ip_address,
        user_agent=client.user_agent,
        http_accept=client.http_accept,
        path_info=client.path_info,
        extra={name: value for name, value in {"address": client.not_an_address, **extra}.items() if value},
    )


def without(counters: Iterable[Counter], others: Iterable[Counter]) -> tuple[Counter, ...]:
    """Return those of ``counters`` that are none of ``others``; under whatever limit, a digest names one counter."""
    known = {counter.digest for counter in others}
    return tuple(counter for counter in counters if counter.digest not in known)


def mark_locked(
    state: AxesState, counters: Iterable[Counter], result: StepResult, request: HttpRequest | None = None
) -> None:
    """Note in the state of a request that its client is locked out."""
    state.locked_out, state.locked_until, state.failure_limit = True, result.locked_until, result.limit
    rules = [counter.rule for counter in counters if counter.rule.tiers or counter.rule.limit == result.limit]
    lasts = max((rule.lockout_ms(result.limit) for rule in rules), default=0)
    state.cooloff = lasts / 1000 if lasts and result.locked_until > 0 else None
    flag(request, locked_out=True)


def mark_locked_by_site(state: AxesState, request: HttpRequest | None, client: Client | None) -> None:
    """Note that a client is to be told that it is locked out, as if a failure of now had set the lockout."""
    lasts = longest_lockout(get_settings(), request)
    state.client, state.locked_out = client, True
    state.locked_until = now_ms() + lasts if lasts else PERMANENT
    state.cooloff = lasts / 1000 if lasts else None
