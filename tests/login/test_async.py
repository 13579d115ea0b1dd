"""Logging in from async code: the same lockouts, and an event loop that is never held up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.contrib.auth import aauthenticate
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, AsyncRequestFactory
from django.urls import path

from axes_async import guard
from axes_async.decorators import axes_dispatch
from axes_async.errors import AttemptDenied
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from tests.actions import address_counters, in_a_loop, kept_keys, reservations_held
from tests.conftest import PASSWORD
from tests.site import CountingBackend, async_sign_in, sign_in
from tests.waiting import PATIENCE

CALLS: list[str | None] = []

pytestmark = [pytest.mark.django_db]


@axes_dispatch
async def own_login(request: HttpRequest) -> HttpResponse:
    """Check a password without Django's authenticate(), and tell Django's signals."""
    CALLS.append(request.method)
    if request.GET.get("break"):
        raise RuntimeError
    if request.method == "POST" and request.POST.get("password") != PASSWORD:
        credentials = {"username": request.POST["username"]}
        await user_login_failed.asend(sender=__name__, credentials=credentials, request=request)
        return HttpResponse("wrong", status=401)
    return HttpResponse(status=204)


async def guarded_login(request: HttpRequest) -> HttpResponse:
    """Check a password in a block of its own."""
    async with guard.attempt(request, {"username": request.POST["username"]}):
        CALLS.append(request.method)
        if "break" in request.GET:
            raise RuntimeError
        user = await aauthenticate(request, username=request.POST["username"], password=request.POST["password"])
    return HttpResponse(status=401 if user is None else 204)


async def check_only(request: HttpRequest) -> HttpResponse:
    """Check a password and log nobody in."""
    user = await aauthenticate(request, username=request.POST["username"], password=request.POST["password"])
    return HttpResponse(status=401 if user is None else 204)


urlpatterns = [
    path("async-sign-in/", async_sign_in),
    path("sign-in/", sign_in),
    path("own/", own_login),
    path("guarded/", guarded_login),
    path("check-only/", check_only),
]


@pytest.fixture(autouse=True)
def _urls(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.login.test_async"
    CALLS.clear()


async def post(client: AsyncClient, url: str = "/async-sign-in/", *, password: str = "wrong", **extra: Any) -> int:
    response = await client.post(url, {"username": "alice", "password": password}, **extra)
    return response.status_code


@pytest.mark.parametrize("url", ["/async-sign-in/", "/sign-in/", "/own/", "/guarded/"])
@in_a_loop
async def test_an_async_site_locks_exactly_at_the_limit(alice: User, async_client: AsyncClient, url: str) -> None:
    assert [await post(async_client, url) for _ in range(4)] == [401, 401, 429, 429]
    assert await post(async_client, url, password=PASSWORD) == 429
    assert CountingBackend.checks == (0 if url == "/own/" else 3)


@in_a_loop
async def test_many_async_guesses_at_once_get_no_more_than_the_limit(alice: User, async_client: AsyncClient) -> None:
    answers = await asyncio.gather(*(post(async_client) for _ in range(12)))
    assert sorted(answers) == [401, 401, *[429] * 10]
    assert CountingBackend.checks == 3


@in_a_loop
async def test_an_async_login_releases_its_reservation(
    alice: User, async_client: AsyncClient, valkey: redis.Redis
) -> None:
    assert [await post(async_client, password=PASSWORD) for _ in range(4)] == [204] * 4
    assert reservations_held(valkey) == 0


@pytest.mark.parametrize("url", ["/check-only/", "/own/", "/guarded/"])
@in_a_loop
async def test_what_an_async_view_leaves_open_is_released(
    alice: User, async_client: AsyncClient, valkey: redis.Redis, url: str
) -> None:
    assert [await post(async_client, url, password=PASSWORD) for _ in range(4)] == [204] * 4
    assert reservations_held(valkey) == 0


@pytest.mark.parametrize("url", ["/own/?break=1", "/guarded/?break=1"])
@in_a_loop
async def test_an_exception_in_an_async_check_counts_as_nothing(
    async_client: AsyncClient, valkey: redis.Redis, url: str
) -> None:
    for _ in range(4):
        with pytest.raises(RuntimeError):
            await post(async_client, url)
    assert len(CALLS) == 4
    assert reservations_held(valkey) == 0


@in_a_loop
async def test_a_check_that_is_cancelled_keeps_its_reservation_until_its_lease_ends(
    alice: User, valkey: redis.Redis
) -> None:
    request = AsyncRequestFactory().post("/")
    inside = asyncio.Event()

    async def check() -> None:
        async with guard.attempt(request, {"username": "alice"}):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(check())
    await inside.wait()
    assert reservations_held(valkey) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reservations_held(valkey) == 1


@in_a_loop
async def test_looking_at_an_async_view_is_no_attempt_and_a_locked_client_does_not_reach_it(
    async_client: AsyncClient, valkey: redis.Redis
) -> None:
    assert [(await async_client.get("/own/")).status_code for _ in range(4)] == [204] * 4
    assert kept_keys(valkey) == []
    for _ in range(3):
        await post(async_client, "/own/")
    CALLS.clear()
    assert (await async_client.get("/own/")).status_code == 429
    assert CALLS == []


@in_a_loop
async def test_a_busy_wait_leaves_the_loop_to_others_and_ends_when_a_reservation_ends(
    alice: User, async_client: AsyncClient, redis_store: RedisStore, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AXES_RESERVE_WAIT = PATIENCE
    counters, waiting, sleep = address_counters(), asyncio.Event(), asyncio.sleep
    for place in range(3):
        redis_store.do(Step(StepKind.RESERVE, f"{place:016}", counters, lease=30_000))

    async def pause(seconds: float) -> None:
        waiting.set()
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    login = asyncio.create_task(post(async_client, password=PASSWORD))
    async with asyncio.timeout(PATIENCE):
        await waiting.wait()
    assert not login.done()
    assert CountingBackend.checks == 0
    redis_store.release(f"{0:016}", counters)
    assert await login == 204


@in_a_loop
async def test_an_async_wait_has_an_end(
    alice: User, async_client: AsyncClient, redis_store: RedisStore, settings: Any
) -> None:
    settings.AXES_RESERVE_WAIT = 0.02
    for place in range(3):
        redis_store.do(Step(StepKind.RESERVE, f"{place:016}", address_counters(), lease=30_000))
    response = await async_client.post("/async-sign-in/", {"username": "alice", "password": PASSWORD})
    assert (response.status_code, response["Retry-After"]) == (429, "1")


@in_a_loop
async def test_a_denied_attempt_raises_before_the_async_block_is_entered(async_client: AsyncClient) -> None:
    for _ in range(3):
        await post(async_client, "/own/")
    with pytest.raises(AttemptDenied):
        async with guard.attempt(AsyncRequestFactory().post("/"), {"username": "alice"}):
            CALLS.append("entered")
    assert "entered" not in CALLS


@in_a_loop
async def test_switched_off_an_async_site_leaves_no_trace(
    alice: User, async_client: AsyncClient, valkey: redis.Redis, settings: Any
) -> None:
    settings.AXES_ENABLED = False
    for url in ("/async-sign-in/", "/own/", "/guarded/"):
        assert [await post(async_client, url) for _ in range(4)] == [401] * 4
    assert kept_keys(valkey) == []


def test_async_attempts_become_rows_like_others(alice: User, drain: Callable[[], int]) -> None:
    client = AsyncClient()
    async_to_sync(post)(client)
    async_to_sync(post)(client, password=PASSWORD)
    assert drain() == 2
    assert AccessAttempt.objects.get().failures_since_start == 1
    assert AccessFailureLog.objects.get().ip_address == AccessLog.objects.get().ip_address == "127.0.0.1"
