"""What one attempt may cost in memory: an event is small, whatever was sent, and names that were cut stay apart."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.test import RequestFactory

from axes_async.client.identity import client_of
from axes_async.counters.events import AttemptEvent
from axes_async.counters.rules import PARAMETERS
from axes_async.login import settlement
from axes_async.models import AccessAttempt, AccessFailureLog
from axes_async.stores.contract import Position
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.drain import drain
from axes_async.tasks.reset import reset
from tests.site import CountingBackend

pytestmark = [pytest.mark.django_db]
KILOBYTE = 1024
FILLINGS = {
    "letters": "x", "four bytes": "\U0001f600", "six bytes each": "\x01", "quotes": '"', "backslashes": "\\",
    "NUL": "\x00", "surrogates": "\ud800", "line ends": "\u2028", "names that grow": "\ufdfa",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _rules(settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"], "username"]
    settings.AXES_COOLOFF_TIME, settings.AXES_USE_ATTEMPT_EXPIRATION = 1, True


@pytest.mark.parametrize("filling", FILLINGS.values(), ids=FILLINGS)
@pytest.mark.parametrize("address", ["2001:db8:1234:5678:9abc:def0:1234:5678", ""])
def test_no_event_has_more_than_a_kilobyte(redis_store: RedisStore, filling: str, address: str) -> None:
    much = filling * 5000
    request = RequestFactory().post("/", HTTP_USER_AGENT=much, HTTP_ACCEPT=much, REMOTE_ADDR=address or much)
    request.path_info = f"/{much}"
    request.session = SessionStore("x" * 32)
    for number in range(5):
        settlement.fail(request, {"username": f"{much}{number}"})
    settlement.log_out(request, much, session_hash="0" * 64, login="0" * 32)
    settlement.succeed(request, much, session_hash="0" * 64)
    wires = [event.wire() for _, event in redis_store.read(Position(), 100) if isinstance(event, AttemptEvent)]
    assert len(wires) == 7
    assert max(len(wire.encode()) for wire in wires) <= KILOBYTE
    assert {AttemptEvent.parse(wire).user_agent[:1] for wire in wires} != {""}


@pytest.mark.parametrize("filling", FILLINGS.values(), ids=FILLINGS)
def test_no_event_has_more_than_a_kilobyte_under_seven_rules(
    redis_store: RedisStore, settings: Any, filling: str
) -> None:
    kinds = [list(kind) for size in (1, 2, 3) for kind in combinations(PARAMETERS, size)]
    settings.AXES_LOCKOUT_PARAMETERS = kinds
    much = filling * 5000
    request = RequestFactory().post(
        "/", HTTP_USER_AGENT=much, HTTP_ACCEPT=much, REMOTE_ADDR="2001:db8:1234:5678:9abc:def0:1234:5678"
    )
    request.path_info, request.session = f"/{much}", SessionStore("x" * 32)
    for _ in range(4):
        settlement.fail(request, {"username": much})
    settlement.succeed(request, much, session_hash="0" * 64)
    events = [event for _, event in redis_store.read(Position(), 100) if isinstance(event, AttemptEvent)]
    assert len(events) == 5
    # A name of spaces alone is none.
    assert max(len(event.changes) for event in events) == (len(kinds) if filling.strip() else 3)
    assert max(len(event.wire().encode()) for event in events) <= KILOBYTE
    assert drain() == 5
    assert AccessFailureLog.objects.count() == 4


@pytest.mark.parametrize("filling", ["x", "\u0416", "\U0001f600"])
def test_long_names_with_one_beginning_have_a_counter_each_and_are_one_in_every_case(
    post: Callable[..., Any], filling: str
) -> None:
    one, other = filling * 250 + "one", filling * 250 + "other"
    assert [post(name).status_code for name in [one.upper(), one, one.lower(), one]] == [401, 401, 429, 429]
    assert post(other).status_code == 401
    drain()
    assert AccessAttempt.objects.count() == 2
    assert reset(username=one.upper()) > 0
    assert post(one).status_code == 401


@pytest.mark.parametrize(
    "name", ["x" * 150, "first.last@example.com", "\u0418\u0432\u0430\u043d" * 25, "\u5f20\u4e09" * 30]
)
def test_a_name_that_people_have_is_shown_as_it_was_typed(name: str) -> None:
    assert client_of(None, name).username == name


def test_what_browsers_send_is_kept_whole(post: Callable[..., Any]) -> None:
    agent = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
    post(HTTP_USER_AGENT=agent, HTTP_ACCEPT=accept)
    drain()
    row = AccessFailureLog.objects.get()
    assert (row.user_agent, row.http_accept, row.path_info) == (agent, accept, "/sign-in/")


def test_a_megabyte_of_marks_is_one_name(alice: User) -> None:
    for number in range(20):
        name = "ali" + "\u0301" * (100_000 + number) + "ce"
        authenticate(RequestFactory().post("/"), username="alice" + "\u200d" * (500_000 + number), password="x")
        assert len(client_of(None, name).username or "") <= 255
    assert CountingBackend.checks == 3
