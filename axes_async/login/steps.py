"""What the steps of an attempt are made of: its client, its counters, its event; and how a step is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from math import inf

from django.http import HttpRequest

from axes_async.client.exemptions import is_admin_view
from axes_async.client.identity import Client, identify
from axes_async.clock import now_ms
from axes_async.conf import AxesSettings, get_settings
from axes_async.conf.lockout_rules import Credentials
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, Rule, counters_for
from axes_async.delivery import publisher
from axes_async.errors import StoreUnavailable
from axes_async.login.attempt import Attempt
from axes_async.login.rules_in_force import counters_of, longest_lockout
from axes_async.login.state import AxesState, state_of
from axes_async.login.unsettled import try_later
from axes_async.models import database
from axes_async.stores.factory import get_failover
from axes_async.stores.results import PERMANENT, StepResult
from axes_async.stores.shared import RequestEnd, SharedStep, hand_on, note_undone, request_end, take_left
from axes_async.stores.step import Step

log = logging.getLogger(__name__)


def client_behind(request: HttpRequest | None, credentials: Credentials) -> Client:
    """Return the client behind ``request`` and ``credentials``; its address is worked out once for a request."""
    if request is None:
        return identify(None, credentials)
    return identify(request, credentials, seen=state_of(request).client)


def client_and_counters(
    settings: AxesSettings, request: HttpRequest | None, credentials: Credentials
) -> tuple[Client, tuple[Counter, ...]]:
    """Return who tries ``credentials``, and the counters that this belongs to."""
    client = client_behind(request, credentials)
    return client, counters_of(settings, request, credentials, client)


def new_attempt(client: Client, counters: tuple[Counter, ...]) -> Attempt:
    """Return an attempt that begins now, and holds no reservation yet."""
    return Attempt(id=new_id(now_ms()), client=client, counters=counters, own=counters)


def event_of(
    kind: Kind,
    event_id: str,
    client: Client,
    request: HttpRequest | None,
    counters: Sequence[Counter] = (),
    **extra: str,
) -> AttemptEvent:
    """Return the event that tells of ``client`` and ``counters``; of ``extra``, what is empty is left out."""
    scope = "admin" if is_admin_view(request) else ""
    event = AttemptEvent(
        kind=kind,
        id=event_id,
        username=client.username,
        ip_address=client.ip_address,
        user_agent=client.user_agent,
        http_accept=client.http_accept,
        path_info=client.path_info,
        extra={
            name: value for name, value in {"address": client.not_an_address, "scope": scope, **extra}.items() if value
        },
    )
    return event.fitted(len(counters))


def without(counters: Iterable[Counter], others: Iterable[Counter]) -> tuple[Counter, ...]:
    """Return those of ``counters`` that are none of ``others``; under whatever limit, a digest names one counter."""
    known = {counter.digest for counter in others}
    return tuple(counter for counter in counters if counter.digest not in known)


def by_name(client: Client, counters: tuple[Counter, ...]) -> list[tuple[Client, tuple[Counter, ...]]]:
    """Return ``client`` under each of its names, with those of ``counters`` that no name before it has."""
    if not client.others:
        return [(client, counters)]
    rules = dict.fromkeys(counter.rule for counter in counters)
    parts, left = [], counters
    for each in (client, *client.others):
        theirs = counters_for(rules, each.canonical)
        parts.append((each, tuple(counter for counter in left if counter in theirs)))
        left = without(left, theirs)
    return parts


def in_store(
    lost: str, step: Step, *, reserved_at: float = 0.0, tell: Callable[[StepResult], object] = lambda result: None
) -> StepResult | None:
    """Do ``step``, and what it leaves to do; return ``None`` where no store answers.

    A step that tells of what has happened is tried again later then.

    :param lost: what the log says then.
    :param reserved_at: when the reservations of the attempt were asked for.
    :param tell: called with the result of a step that is done later, in another thread.
    """
    if step.decides and (end := request_end.get()):
        _do_again(end.take_undone(step.counters))  # What an earlier part of this request has rolled back counts here.
    store = get_failover()
    try:
        result = store.do(step)
    except StoreUnavailable as error:
        plan = ""
        if not step.decides:
            # A store that is probed, and is not the database, may have done it.
            is_at_end = not store.probes and note_undone(step, tell, database())
            is_tried = is_at_end or try_later(step, reserved_at, tell)
            plan = f" {'It is tried again' if is_tried else 'It is lost but for this line'}: {step.line}"
        log.error("%s, the store is unavailable (%s).%s", lost, error, plan)
        publisher.nudge_for_sync()
        return None
    publisher.follow_up(result)
    return result


def end_request(end: RequestEnd) -> None:
    """Do what a request has left to do, unless the transaction that it was served in goes on."""
    if end and not hand_on(end, database()):
        _finish(end)


def end_left(**kwargs: object) -> None:
    """Do what was left by requests that were served in the transaction of a middleware, which is over."""
    for end in take_left(database()):
        _finish(end)


def _finish(end: RequestEnd) -> None:
    """Do what was rolled back again, and then what has waited."""
    _do_again(end.take_undone())
    end.forget_steps()
    for call in end.calls.values():
        call()


def _do_again(steps: Iterable[SharedStep]) -> None:
    for each in steps:
        result = in_store("What was rolled back is not counted or recorded", each.step, tell=each.tell)
        if result is not None:
            try:
                each.tell(result)
            except Exception:  # Of a site's receiver: it must not keep the others from being done.
                log.exception("What follows from it did not go through: %s", each.step.line)


def locking_rule(counters: Iterable[Counter], result: StepResult) -> Rule | None:
    """Return the rule that the failure has locked by; of several, the one that locks for the longest time."""
    pairs = zip(counters, result.failures, strict=False)
    locked = [c.rule for c, failures in pairs if 0 < c.rule.limit_at(failures - 1, locked=False) <= failures]
    return max(locked, key=lambda rule: rule.lockout_ms(result.limit) or inf, default=None)


def mark_locked(state: AxesState, counters: Iterable[Counter], result: StepResult) -> None:
    """Note in the state of a request that its client is locked out."""
    rules = [counter.rule for counter in counters if counter.rule.tiers or counter.rule.limit == result.limit]
    lasts = max((rule.lockout_ms(result.limit) for rule in rules), default=0)
    state.mark_locked(result.locked_until, lasts=lasts, limit=result.limit)


def mark_locked_by_site(state: AxesState, request: HttpRequest, credentials: Credentials = None) -> None:
    """Note that a client is to be told that it is locked out, as if a failure of now had set the lockout."""
    state.client = client_behind(request, credentials)
    lasts = longest_lockout(get_settings(), request)
    state.mark_locked(now_ms() + lasts if lasts else PERMANENT, lasts=lasts)
