"""Passwords that are tried side by side for one request: each has a reservation of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import aauthenticate
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from axes_async import guard
from axes_async.decorators import axes_dispatch
from axes_async.login import reservation
from axes_async.models import AccessFailureLog
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from tests.actions import address_counters, failures_stored, request_from, reservations_held
from tests.site import CountingBackend
from tests.waiting import PATIENCE

Drain = Callable[[], int]

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
    """Try a password in a task that is waited for, within reservations that are held."""
    async with guard.attempt(request, {"username": "alice"}):
        await asyncio.create_task(aauthenticate(request, username="alice", password="wrong"))
        await asyncio.create_task(aauthenticate(request, username="alice", password="wrong"))
    return HttpResponse("wrong", status=401)


@axes_dispatch
async def blocks_in_tasks(request: HttpRequest) -> HttpResponse:
    """Try names in tasks each of which goes on until the blocks of both have ended."""
    ended = asyncio.Barrier(2)

    async def guess(name: str) -> None:
        async with guard.attempt(request, {"username": name}) as attempt:
            await attempt.afailed()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()

    await asyncio.gather(*(guess(name) for name in ("alice", "bob")))
    return HttpResponse("wrong", status=401)


@axes_dispatch
async def blocks_within_each_other(request: HttpRequest) -> HttpResponse:
    """Try another name while the block of a task beside it is open."""
    begun, inside, told, over = (asyncio.Event() for _ in range(4))

    async def first() -> None:
        async with guard.attempt(request, {"username": "alice"}) as attempt:
            begun.set()
            await inside.wait()
            await attempt.afailed()
            told.set()
            await over.wait()

    async def second() -> None:
        await begun.wait()
        async with guard.attempt(request, {"username": "bob"}) as attempt:
            inside.set()
            await told.wait()
            await attempt.afailed()
            over.set()

    await asyncio.gather(first(), second())
    return HttpResponse("wrong", status=401)


urlpatterns = [
    path("within/", blocks_within_each_other),
    path("many-at-once/", many_at_once),
    path("blocks-at-once/", blocks_at_once),
    path("in-a-task/", in_a_task_of_its_own),
    path("tasks/", blocks_in_tasks),
]


@async_to_sync
async def async_post(url: str) -> None:
    """Send a POST as ASGI servers do."""
    await AsyncClient().post(url)


@pytest.mark.parametrize("url", ["/many-at-once/", "/blocks-at-once/"])
def test_tries_side_by_side_in_one_request_get_the_limit_together(alice: User, valkey: redis.Redis, url: str) -> None:
    async_post(url)
    assert CountingBackend.checks == 3
    assert failures_stored(valkey) == [3]
    assert reservations_held(valkey) == 0


def test_a_task_within_an_attempt_waits_for_none_of_it(alice: User, valkey: redis.Redis, settings: Any) -> None:
    settings.AXES_RESERVE_WAIT = 0
    async_post("/in-a-task/")
    assert CountingBackend.checks == 2
    assert failures_stored(valkey) == [2]
    assert reservations_held(valkey) == 0


def test_a_block_within_a_block_keeps_no_other_task_waiting(settings: Any, client: Client, drain: Drain) -> None:
    settings.AXES_RESERVE_WAIT = PATIENCE
    assert client.post("/tasks/").status_code == 401
    drain()
    assert set(AccessFailureLog.objects.values_list("username", flat=True)) == {"alice", "bob"}


def test_a_block_shares_no_reservation_with_a_block_of_a_task_beside_it(client: Client, drain: Drain) -> None:
    assert client.post("/within/").status_code == 401
    drain()
    assert sorted(AccessFailureLog.objects.values_list("username", flat=True)) == ["alice", "bob"]


def test_who_came_first_asks_most_often_and_the_others_move_up(
    settings: Any, monkeypatch: pytest.MonkeyPatch, redis_store: RedisStore
) -> None:
    settings.AXES_RESERVE_WAIT = 3600
    monkeypatch.setattr(reservation, "uniform", lambda low, high: high)
    for place in range(3):
        redis_store.do(Step(StepKind.RESERVE, f"{place:016}", address_counters(), lease=30_000))
    asking = [
        reservation._Asking(request_from("127.0.0.1"), {"username": name}) for name in ("alice", "bob", "carol", "dave")
    ]
    stranger = reservation._Asking(request_from("192.0.2.9"), {"username": "mallory"})
    assert [round(each.ask(), 2) for each in asking] == [0.02, 0.04, 0.06, 0.08]
    assert [round(each.ask(), 2) for each in asking] == [0.02, 0.04, 0.06, 0.08]
    assert stranger.ask() == 0
    redis_store.release(f"{0:016}", address_counters())
    assert asking[0].ask() == 0
    asking[0].leave_line()
    assert [round(each.ask(), 2) for each in asking[1:]] == [0.02, 0.04, 0.06]
    for each in asking:
        each.leave_line()
    assert reservation._lines == {}
