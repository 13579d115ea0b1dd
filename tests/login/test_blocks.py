"""Blocks around a password check: ``guard.attempt``, with and without a request, one within another."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest
import redis
from django.contrib.auth import authenticate
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from axes_async import guard
from axes_async.decorators import axes_dispatch
from axes_async.errors import AttemptDenied
from axes_async.login import steps
from axes_async.login.state import AxesState
from axes_async.models import AccessFailureLog, AttemptCounter
from axes_async.utils import reset
from tests import servers
from tests.actions import failure, request_from, reservations_held
from tests.site import CountingBackend
from tests.stores.test_concurrency import at_once

HOME = "192.0.2.1"

Drain = Callable[[], int]
Post = Callable[..., Any]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]


@axes_dispatch
def blocks_in_blocks(request: HttpRequest) -> HttpResponse:
    """Try one name in a block, and another (or the same) in one within it; tell what is said in ``tell``."""
    outer_name, inner_name, tell = request.POST["outer"], request.POST["inner"], request.POST["tell"]
    with guard.attempt(request, {"username": outer_name}) as outer:
        CountingBackend.count()
        with guard.attempt(request, {"username": inner_name}) as inner:
            if "inner" in tell:
                inner.failed()
        HELD.append(reservations_held(plain_client()))
        if "outer" in tell:
            outer.failed()
    if "late" in tell:
        outer.failed()
    return HttpResponse("wrong", status=401)


HELD: list[int] = []
urlpatterns = [path("blocks/", blocks_in_blocks)]


def plain_client() -> Any:
    """Return a client of the server that holds the counters."""
    return redis.Redis.from_url(servers.valkey_url(), decode_responses=True)


def states_left() -> list[AxesState]:
    """Return what a block has left behind in the context of this thread."""
    return [value for value in copy_context().values() if isinstance(value, AxesState)]


def test_of_50_blocks_at_once_outside_any_request_5_look_at_the_password(settings: Any, valkey: redis.Redis) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_FAILURE_LIMIT = ["username"], 5
    CountingBackend.seconds = 0.05

    def guess(number: int) -> list[AxesState]:
        try:
            with guard.attempt(None, {"username": "alice"}) as attempt:
                CountingBackend.count()
                attempt.failed()
        except AttemptDenied:
            pass
        return states_left()

    left = at_once(50, guess)
    assert CountingBackend.checks == 5
    assert left == [[]] * 50
    assert reservations_held(valkey) == 0


def test_a_block_outside_any_request_holds_a_reservation_until_its_end(settings: Any, valkey: redis.Redis) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    for _ in range(4):
        with guard.attempt(None, {"username": "alice"}):
            assert reservations_held(valkey) == 1
        assert (reservations_held(valkey), states_left()) == (0, [])
    with pytest.raises(RuntimeError), guard.attempt(None, {"username": "alice"}):
        raise RuntimeError
    assert (reservations_held(valkey), states_left()) == (0, [])


def test_a_block_that_cannot_be_entered_leaves_nothing_in_the_context(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*args: Any) -> None:
        raise ImproperlyConfigured

    monkeypatch.setattr(steps, "identify", fault)
    with pytest.raises(ImproperlyConfigured):
        guard.attempt(None, {"username": "alice"}).__enter__()
    assert states_left() == []


@pytest.mark.parametrize("inner", ["alice", "bob"])
def test_a_block_within_a_block_leaves_its_reservation_to_the_one_around_it(
    post: Post, client: Client, inner: str
) -> None:
    HELD.clear()
    for tell in ("outer", "late", "inner"):
        client.post("/blocks/", {"outer": "alice", "inner": inner, "tell": tell})
    assert HELD == [1, 1, 0]
    assert client.post("/blocks/", {"outer": "alice", "inner": inner, "tell": ""}).status_code == 429
    assert CountingBackend.checks == 3


@pytest.mark.parametrize(("inner", "failures"), [("alice", 1), ("bob", 2)])
def test_a_password_that_both_blocks_tell_of_is_one_failure_and_one_for_each_name(
    settings: Any, client: Client, drain: Drain, inner: str, failures: int
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    client.post("/blocks/", {"outer": "alice", "inner": inner, "tell": "inner, outer"})
    drain()
    assert AccessFailureLog.objects.count() == failures
    assert set(AccessFailureLog.objects.values_list("username", flat=True)) == {"alice", inner}


@pytest.mark.parametrize("who", [{}, {"ip": HOME}], ids=str)
@pytest.mark.parametrize("has_row", [True, False])
def test_a_reset_keeps_the_reservations_of_passwords_that_are_being_looked_at(
    drain: Drain, valkey: redis.Redis, settings: Any, who: dict[str, Any], has_row: bool
) -> None:
    settings.AXES_RESERVE_WAIT = 0
    failure("alice", HOME)
    drain()
    if not has_row:
        AttemptCounter.objects.all().delete()
    with guard.attempt(request_from(HOME), {"username": "alice"}):
        reset(**who)
        assert reservations_held(valkey) == 1
        assert [failure("alice", HOME) for _ in range(3)] == [True, True, False], "the block may yet be the third"
    assert reservations_held(valkey) == 0


def test_without_an_address_the_log_says_once_that_rules_do_not_count(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> int:
        return caplog.text.count("outside of any request")

    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    authenticate(username="alice", password="wrong")
    assert told() == 0
    settings.AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"]
    for _ in range(3):
        failure("alice", HOME)
    assert told() == 0
    for _ in range(3):
        authenticate(username="alice", password="wrong")
    assert told() == 1
