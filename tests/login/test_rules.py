"""Limits, parameters and rules of a site's own: what callables are asked, and that each rule holds by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, RequestFactory

from axes_async import guard
from axes_async.conf import get_settings
from axes_async.decorators import axes_dispatch
from axes_async.login import reservation
from axes_async.login.rules_in_force import longest_cooloff, rules_for
from axes_async.models import AccessAttempt, AttemptCounter
from axes_async.utils import reset, reset_request
from tests.actions import failure, request_from, success
from tests.conftest import PASSWORD
from tests.site import CountingBackend
from tests.stores.test_concurrency import at_once

Post = Callable[..., Any]
Drain = Callable[[], int]
Asked = list[tuple[Any, Any]]
A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"
THREE_RULES = [
    {"parameters": ["username", "ip_address"], "limit": 2},
    {"parameters": ["username"], "limit": 4},
    {"parameters": ["ip_address"], "limit": 5},
]

pytestmark = [pytest.mark.django_db]


@pytest.fixture
def clock() -> Any:
    """Stand still until told to move."""
    with time_machine.travel("2026-01-01T00:00:00+00:00", tick=False) as clock:
        yield clock


def asking(answer: Any, asked: Asked) -> Callable[..., Any]:
    """Return a callable that notes what it is asked."""

    def callable_setting(request: Any, credentials: Any) -> Any:
        asked.append((request, credentials))
        return answer

    return callable_setting


def by_name(request: Any, credentials: Any) -> int:
    """Return a limit of 2 for alice, and of 4 for everybody else."""
    return 2 if credentials and credentials.get("username") == "alice" else 4


def staff_by_address(request: Any, credentials: Any) -> list[Any]:
    """Count names on the login page, and addresses elsewhere."""
    return ["username"] if request is not None and request.path == "/sign-in/" else ["ip_address"]


@pytest.mark.parametrize("limit", [by_name, "tests.login.test_rules.by_name"])
def test_a_limit_may_depend_on_request_and_credentials(any_store: str, settings: Any, limit: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_FAILURE_LIMIT = ["username"], limit
    assert [failure("alice") for _ in range(4)] == [True, True, False, False]
    assert [failure("bob") for _ in range(6)] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("parameters", [staff_by_address, "tests.login.test_rules.staff_by_address"])
def test_parameters_may_depend_on_request_and_credentials(any_store: str, settings: Any, parameters: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = parameters
    assert [failure("alice", f"192.0.2.{number}") for number in range(4)] == [True] * 3 + [False]
    assert failure("bob", A)
    reset(username="alice")
    assert failure("alice", A)


@pytest.mark.parametrize("name", ["AXES_FAILURE_LIMIT", "AXES_LOCKOUT_PARAMETERS"])
@pytest.mark.parametrize("password", ["wrong", PASSWORD])
def test_a_callable_is_asked_once_an_attempt_with_the_request_and_the_credentials(
    alice: User, post: Post, settings: Any, name: str, password: str
) -> None:
    asked: Asked = []
    setattr(settings, name, asking(5 if name == "AXES_FAILURE_LIMIT" else ["username", "ip_address"], asked))
    response = post(password=password)
    ((request, credentials),) = asked
    assert request is response.wsgi_request
    assert credentials["username"] == "alice"


def test_before_a_view_a_callable_is_asked_without_credentials(settings: Any, rf: RequestFactory) -> None:
    asked: Asked = []
    settings.AXES_FAILURE_LIMIT = asking(3, asked)
    request = rf.get("/")
    axes_dispatch(lambda request: None)(request)
    assert asked == [(request, None)]
    reservation.reserve(None, {"username": "alice"})
    assert asked[1:] == [(None, {"username": "alice"})]


def test_a_cool_off_callable_is_given_the_request(alice: User, post: Post, settings: Any, drain: Drain) -> None:
    asked = []

    def cooloff(request: Any) -> timedelta:
        asked.append(request)
        return timedelta(minutes=5 if request.path == "/sign-in/" else 60)

    settings.AXES_COOLOFF_TIME = cooloff
    response = [post() for _ in range(3)][-1]
    assert asked[-1] is response.wsgi_request
    assert len(asked) == 3
    assert response["Retry-After"] == "300"


@pytest.mark.parametrize(
    ("name", "answer"),
    [("AXES_FAILURE_LIMIT", answer) for answer in (0, -1, None, "3", 2.5, True, 2**31)]
    + [("AXES_LOCKOUT_PARAMETERS", answer) for answer in ([], None, "username", ["email"], [[]], 3)],
    ids=repr,
)
def test_what_a_callable_returns_is_checked(settings: Any, name: str, answer: object) -> None:
    setattr(settings, name, asking(answer, []))
    with pytest.raises(ImproperlyConfigured, match=rf"^{name} is .* or a callable that returns one of those"):
        failure()


@pytest.mark.parametrize("key", ["limit", "cooloff"])
def test_what_a_callable_of_a_rule_returns_is_checked(settings: Any, key: str) -> None:
    settings.AXES_LOCKOUT_RULES = [{"parameters": "username"}, {"parameters": "ip_address", key: lambda *given: -1}]
    with pytest.raises(ImproperlyConfigured, match=rf"^AXES_LOCKOUT_RULES\[1\]\['{key}'\] is -1"):
        failure()


@pytest.mark.parametrize("error", [TypeError("mine"), KeyError("mine")], ids=repr)
@pytest.mark.parametrize("name", ["AXES_FAILURE_LIMIT", "AXES_LOCKOUT_PARAMETERS"])
def test_the_error_of_a_callable_surfaces_after_one_call(settings: Any, name: str, error: Exception) -> None:
    asked = []

    def broken(request: Any, credentials: Any) -> Any:
        asked.append(credentials)
        raise error

    setattr(settings, name, broken)
    with pytest.raises(type(error), match="mine"):
        failure()
    assert len(asked) == 1


def test_where_nothing_locks_no_limit_is_asked_for(settings: Any) -> None:
    settings.AXES_LOCK_OUT_AT_FAILURE, settings.AXES_FAILURE_LIMIT = False, asking(1, asked := [])
    assert [failure() for _ in range(3)] == [True] * 3
    assert asked == []


def test_each_rule_locks_at_its_own_limit(any_store: str, settings: Any) -> None:
    settings.AXES_LOCKOUT_RULES = THREE_RULES
    assert [failure("alice", A) for _ in range(3)] == [True, True, False], "name and address"
    assert [failure("alice", B) for _ in range(3)] == [True, True, False], "the name"
    assert not failure("alice", C)
    assert [failure(f"user{number}", A) for number in range(4)] == [True] * 3 + [False], "the address"
    assert failure("user0", C)


def test_a_locked_client_is_told_the_limit_that_it_has_reached(
    alice: User, any_store: str, post: Post, settings: Any, rf: RequestFactory
) -> None:
    settings.AXES_LOCKOUT_RULES = [{"parameters": "username", "limit": 2}, {"parameters": "ip_address", "limit": 3}]
    json = {"HTTP_ACCEPT": "application/json"}
    post("bob")
    post("carol")
    assert post("dave", **json).json()["failure_limit"] == 3
    assert post("erin", **json).json()["failure_limit"] == 3
    request = request_from("127.0.0.1")
    assert guard.look(request).failure_limit == 3


def test_each_rule_ends_by_its_own_cool_off(any_store: str, settings: Any, clock: time_machine.Coordinates) -> None:
    settings.AXES_FAILURE_LIMIT, settings.AXES_COOLOFF_TIME = 2, timedelta(minutes=1)
    settings.AXES_LOCKOUT_RULES = [
        {"parameters": "username"},
        {"parameters": "ip_address", "cooloff": lambda request: timedelta(minutes=10)},
    ]
    for _ in range(2):
        failure("alice", A)
    clock.shift(61)
    assert failure("alice", B)
    assert not failure("bob", A)
    clock.shift(540)
    assert failure("bob", A)


def test_a_limit_for_all_is_asked_for_once_however_many_rules_need_it(settings: Any) -> None:
    settings.AXES_LOCKOUT_RULES = [{"parameters": "username"}, {"parameters": "ip_address"}]
    settings.AXES_FAILURE_LIMIT = asking(3, asked := [])
    rules = rules_for(get_settings(), None, {"username": "alice"})
    assert [rule.limit for rule in rules] == [3, 3]
    assert asked == [(None, {"username": "alice"})]


def test_rules_without_callables_are_worked_out_once(settings: Any) -> None:
    settings.AXES_LOCKOUT_RULES = THREE_RULES
    assert rules_for(get_settings(), None, None) is rules_for(get_settings(), request_from(A), {"username": "a"})


@pytest.mark.parametrize(
    "who",
    [
        {},
        {"username": "alice"},
        {"ip": A},
        {"username": "alice", "ip": A},
        {"username": "alice", "ip": A, "ip_or_username": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("how", ["rules", "callable", "callables of rules"])
def test_a_reset_reaches_the_counters_of_every_rule(any_store: str, settings: Any, who: Any, how: str) -> None:
    settings.AXES_FAILURE_LIMIT = 3
    names = [["username", "ip_address"]] if len(who) == 2 else ["username", "ip_address", ["username", "ip_address"]]
    if who.keys() == {"username"}:
        names.remove("ip_address")
    if who.keys() == {"ip"}:
        names.remove("username")
    if how == "rules":
        settings.AXES_LOCKOUT_RULES = [{"parameters": name, "cooloff": 1} for name in names]
    elif how == "callable":
        settings.AXES_LOCKOUT_PARAMETERS = lambda request, credentials: names if request is not None else ["user_agent"]
    else:
        settings.AXES_LOCKOUT_RULES = [{"parameters": name, "limit": lambda *given: 3} for name in names]
    assert [failure("alice", A) for _ in range(4)] == [True] * 3 + [False]
    reset(**who)
    assert success("alice", A)
    assert [failure("alice", A) for _ in range(4)] == [True] * 3 + [False], "and nothing was left behind"


@pytest.mark.parametrize("who", [{}, {"username": "alice"}], ids=str)
def test_a_reset_reaches_counters_that_no_row_and_no_setting_speaks_of(settings: Any, drain: Drain, who: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = lambda request, credentials: ["username"]
    for _ in range(3):
        failure()
    drain()
    AttemptCounter.objects.all().delete()
    AccessAttempt.objects.all().delete()
    assert not failure()
    reset(**who)
    assert failure()


@pytest.mark.parametrize(
    "rules",
    [[{"parameters": "username", "limit": 3}], lambda request, credentials: ["username"]],
    ids=["rules", "callable"],
)
def test_a_reset_of_a_request_asks_the_rules_of_that_request(settings: Any, rf: RequestFactory, rules: Any) -> None:
    setattr(settings, "AXES_LOCKOUT_PARAMETERS" if callable(rules) else "AXES_LOCKOUT_RULES", rules)
    for _ in range(3):
        failure("alice", A)
    assert reset_request(rf.post("/", {"username": "bob"}, REMOTE_ADDR=A)) == 0
    assert not success("alice", A)
    assert reset_request(rf.post("/", {"username": "alice"}, REMOTE_ADDR=B)) == 1
    assert success("alice", A)


def test_the_rules_survive_a_flushed_store(settings: Any, drain: Drain, valkey: Any) -> None:
    settings.AXES_LOCKOUT_RULES = THREE_RULES
    for number in range(3):
        failure(f"user{number}", A)
    failure("alice", B)
    failure("alice", B)
    drain()
    valkey.flushall()
    assert not failure("alice", B)
    assert [failure(f"other{number}", A) for number in range(3)] == [True, True, False]


def test_the_longest_cool_off_of_the_rules_is_what_uncounted_rows_are_kept_for(settings: Any, drain: Drain) -> None:
    settings.AXES_LOCKOUT_RULES = [
        {"parameters": "username", "cooloff": timedelta(minutes=1)},
        {"parameters": "ip_address", "cooloff": timedelta(minutes=2)},
    ]
    assert longest_cooloff(get_settings()) == timedelta(minutes=2)
    failure(None, "")
    drain()
    row = AccessAttempt.objects.get()
    assert row.expires_at is not None
    assert row.expires_at - row.attempt_time == timedelta(minutes=2)


def test_a_limit_that_is_lowered_by_a_later_name_in_the_same_request_holds(settings: Any, rf: RequestFactory) -> None:
    settings.AXES_FAILURE_LIMIT = by_name
    for _ in range(3):
        failure("bob", A)
    request = request_from(A)
    first = reservation.reserve(request, {"username": "bob"})
    assert first is not None
    assert not first.denied
    second = reservation.reserve(request, {"username": "alice"})
    assert second is not None
    assert second.denied


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("clients", "looked_at"),
    [
        ([("alice", A)], 3),
        ([("alice", f"198.51.100.{number}") for number in range(64)], 6),
        ([(f"user{number}", A) for number in range(64)], 10),
    ],
    ids=["name and address", "name", "address"],
)
def test_in_a_burst_each_rule_lets_exactly_its_limit_through(
    settings: Any, drain: Drain, clients: list[tuple[str, str]], looked_at: int
) -> None:
    settings.AXES_LOCKOUT_RULES = [
        {"parameters": ["username", "ip_address"], "limit": 3},
        {"parameters": ["username"], "limit": 6},
        {"parameters": ["ip_address"], "limit": lambda request, credentials: 10},
    ]
    CountingBackend.seconds = 0.02

    def guess(number: int) -> int:
        username, address = clients[number % len(clients)]
        form = {"username": username, "password": "wrong"}
        return Client().post("/nobody/", form, REMOTE_ADDR=address).status_code

    statuses = Counter(at_once(64, guess))
    assert CountingBackend.checks == looked_at
    assert statuses == {401: looked_at - 1, 429: 65 - looked_at}
    drain()
    assert all(row.failures <= row.limit for row in AttemptCounter.objects.all())
