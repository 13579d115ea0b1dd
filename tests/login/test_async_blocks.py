"""Clients that go away in the middle of an async login, and async blocks without a request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, cast

import pytest
import redis
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from celery import current_app
from django.contrib.auth import aauthenticate, authenticate
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, AsyncRequestFactory
from django.urls import path
from django.utils.decorators import async_only_middleware

from axes_async import guard
from axes_async.counters.rules import Rule, counters_for
from axes_async.decorators import axes_dispatch
from axes_async.errors import AttemptDenied
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
from axes_async.stores.contract import Store
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import StepResult, Verdict
from axes_async.stores.step import Step, StepKind
from tests.actions import address_counters, failure, in_a_loop, reservations_held
from tests.conftest import PASSWORD
from tests.login.test_blocks import states_left
from tests.site import CountingBackend, async_sign_in, sign_in
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.django_db]

INSIDE: list[asyncio.Event] = []
"""The event that is set when a password check has begun."""
OVER: list[asyncio.Event] = []
"""The event that ends it."""


async def _check() -> HttpResponse:
    INSIDE[0].set()
    await OVER[0].wait()
    return HttpResponse(status=204)


@axes_dispatch
async def dispatched(request: HttpRequest) -> HttpResponse:
    """Check until the test ends it."""
    return await _check()


async def in_block(request: HttpRequest) -> HttpResponse:
    """Check, in a block of its own."""
    async with guard.attempt(request, {"username": request.POST["username"]}):
        return await _check()


async def in_bare_block(request: HttpRequest) -> HttpResponse:
    """Check, in a block that is not given the request."""
    async with guard.attempt(None, {"username": request.POST["username"]}):
        return await _check()


@axes_dispatch
def own_check(request: HttpRequest) -> HttpResponse:
    """Check with nothing but the decorator around."""
    CountingBackend.count()
    return HttpResponse(status=401)


@axes_dispatch
def widened(request: HttpRequest) -> HttpResponse:
    """Try a name that the decorator does not know."""
    return HttpResponse(status=401 if authenticate(request, username="bob", password="wrong") is None else 204)


@axes_dispatch
async def async_widened(request: HttpRequest) -> HttpResponse:
    """Do as ``widened``."""
    return HttpResponse(status=401 if await aauthenticate(request, username="bob", password="wrong") is None else 204)


NOTED: list[str] = []
context: ContextVar[str] = ContextVar("context", default="nothing")


async def in_context(request: HttpRequest) -> HttpResponse:
    """Set something in the context."""
    context.set("set by the view")
    return HttpResponse()


@async_only_middleware
def note_context(get_response: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> Any:
    """Note what the view has set."""

    async def middleware(request: HttpRequest) -> HttpResponse:
        NOTED.clear()
        response = await get_response(request)
        NOTED.append(context.get())
        return response

    return middleware


urlpatterns = [
    path("in-context/", in_context),
    path("async-sign-in/", async_sign_in),
    path("sign-in/", sign_in),
    path("own-check/", own_check),
    path("widened/", widened),
    path("async-widened/", async_widened),
    path("dispatched/", dispatched),
    path("in-block/", in_block),
    path("in-bare-block/", in_bare_block),
]

VIEWS = ["/dispatched/", "/in-block/", "/in-bare-block/"]


async def through_a_block_with_a_request(client: AsyncClient) -> None:
    """Try a password where no middleware is."""
    async with guard.attempt(AsyncRequestFactory().post("/"), {"username": "alice"}):
        await _check()


async def through_a_block_without_one(client: AsyncClient) -> None:
    """Try a password outside any request, as a task or a websocket does."""
    async with guard.attempt(None, {"username": "alice"}):
        await _check()


async def through_a_view_without_middleware(client: AsyncClient) -> None:
    """Try a password at a view that nothing stands around."""
    await dispatched(AsyncRequestFactory().post("/", {"username": "alice"}))


def through(url: str) -> Callable[[AsyncClient], Awaitable[Any]]:
    """Return a way to try a password at ``url``."""

    async def way(client: AsyncClient) -> None:
        await client.post(url, {"username": "alice", "password": PASSWORD})

    return way


BARE = [through_a_block_with_a_request, through_a_block_without_one, through_a_view_without_middleware]
WAYS = [pytest.param(through(url), id=url) for url in ["/async-sign-in/", *VIEWS]]
WAYS += [pytest.param(way, id=way.__name__) for way in BARE]
Way = Callable[[AsyncClient], Awaitable[Any]]


@pytest.fixture(autouse=True)
def _site(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username"]
    INSIDE[:], OVER[:] = [asyncio.Event()], [asyncio.Event()]


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` and wait for its end."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(PATIENCE):
            await task


@pytest.mark.parametrize("way", WAYS)
@in_a_loop
async def test_a_client_that_leaves_while_it_waits_for_a_reservation_leaves_none_behind(
    alice: User, async_client: AsyncClient, redis_store: RedisStore, valkey: redis.Redis, settings: Any,
    monkeypatch: pytest.MonkeyPatch, way: Way,
) -> None:  # fmt: skip
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    settings.AXES_RESERVE_WAIT = 30
    waiting, sleep = asyncio.Event(), asyncio.sleep
    counters = counters_for([Rule(parameters=("username",), limit=3, cooloff=None)], {"username": "alice"})
    for place in range(3):
        redis_store.do(Step(StepKind.RESERVE, f"{place:016}", counters, lease=30_000))

    async def pause(seconds: float) -> None:
        waiting.set()
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    task = asyncio.ensure_future(way(async_client))
    async with asyncio.timeout(PATIENCE):
        await waiting.wait()
    await cancelled(task)
    assert reservations_held(valkey) == 3
    for place in range(3):
        redis_store.release(f"{place:016}", counters)
    assert reservations_held(valkey) == 0


@pytest.mark.parametrize("way", WAYS)
@in_a_loop
async def test_a_client_that_leaves_while_its_reservation_is_made_leaves_none_behind(
    alice: User, async_client: AsyncClient, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    loop, reserved, left, do = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), RedisStore.do

    def slow(store: RedisStore, step: Step) -> StepResult:
        outcome = do(store, step)
        if step.kind is not StepKind.RESERVE:
            return outcome
        loop.call_soon_threadsafe(reserved.set)
        left.wait(PATIENCE)
        return outcome

    monkeypatch.setattr(RedisStore, "do", slow)
    task = asyncio.ensure_future(way(async_client))
    async with asyncio.timeout(PATIENCE):
        await reserved.wait()
    assert reservations_held(valkey) > 0
    loop.call_later(0.05, left.set)
    await cancelled(task)
    async with asyncio.timeout(PATIENCE):
        while reservations_held(valkey):  # noqa: ASYNC110  (the answer comes in a thread that nobody waits for)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("url", ["/sign-in/", "/own-check/"])
@pytest.mark.parametrize("verdict", [Verdict.ALLOWED, Verdict.BUSY, Verdict.LOCKED])
@in_a_loop
async def test_of_a_client_that_leaves_a_sync_view_without_a_reservation_no_password_is_looked_at(
    alice: User, async_client: AsyncClient, redis_store: RedisStore, valkey: redis.Redis, settings: Any,
    monkeypatch: pytest.MonkeyPatch, verdict: Verdict, url: str,
) -> None:  # fmt: skip
    """Its thread goes on: nothing can stop it but the answer."""
    settings.AXES_RESERVE_WAIT = 30
    loop, asked, left, do = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), RedisStore.do
    for place in range(3):
        if verdict is Verdict.BUSY:
            redis_store.do(Step(StepKind.RESERVE, f"{place:016}", address_counters(), lease=30_000))
        elif verdict is Verdict.LOCKED:
            failure("alice", "127.0.0.1")

    def slow(store: RedisStore, step: Step) -> StepResult:
        outcome = do(store, step)
        if step.kind is StepKind.RESERVE:
            verdicts.append(outcome.verdict)
            loop.call_soon_threadsafe(asked.set)
            left.wait(PATIENCE)
        return outcome

    verdicts: list[Verdict] = []
    checks = CountingBackend.checks
    monkeypatch.setattr(RedisStore, "do", slow)
    task = asyncio.ensure_future(through(url)(async_client))
    async with asyncio.timeout(PATIENCE):
        await asked.wait()
    await cancelled(task)
    left.set()
    await sync_to_async(lambda: None)()  # In the same thread.
    assert verdicts == [verdict]
    assert CountingBackend.checks == checks
    assert reservations_held(valkey) == (3 if verdict is Verdict.BUSY else 0)


@pytest.mark.parametrize("url", ["/widened/", "/async-widened/"])
@in_a_loop
async def test_a_client_that_leaves_while_it_waits_for_more_reservations_leaves_none_behind(
    async_client: AsyncClient, redis_store: RedisStore, valkey: redis.Redis, settings: Any,
    monkeypatch: pytest.MonkeyPatch, url: str,
) -> None:  # fmt: skip
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_RESERVE_WAIT = ["ip_address", "username"], 30
    loop, asked, left, do = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), RedisStore.do
    counters = counters_for([Rule(parameters=("username",), limit=3, cooloff=None)], {"username": "bob"})
    for place in range(3):
        redis_store.do(Step(StepKind.RESERVE, f"{place:016}", counters, lease=30_000))

    def slow(store: RedisStore, step: Step) -> StepResult:
        outcome = do(store, step)
        if step.kind is StepKind.RESERVE and outcome.verdict is Verdict.BUSY:
            loop.call_soon_threadsafe(asked.set)
            left.wait(PATIENCE)
        return outcome

    monkeypatch.setattr(RedisStore, "do", slow)
    task = asyncio.ensure_future(through(url)(async_client))
    async with asyncio.timeout(PATIENCE):
        await asked.wait()
    assert reservations_held(valkey) == 3 + 2, "of the address, and of the name in the form"
    loop.call_later(0.05, left.set)
    await cancelled(task)
    async with asyncio.timeout(PATIENCE):
        while reservations_held(valkey) > 3:  # noqa: ASYNC110  (a thread releases them)
            await asyncio.sleep(0.01)


@in_a_loop
async def test_a_view_that_is_cancelled_with_a_decorator_alone_holds_nothing(
    async_client: AsyncClient, valkey: redis.Redis
) -> None:
    """Whatever was cancelled: nobody has said that a password is tried."""
    task = asyncio.ensure_future(through_a_view_without_middleware(async_client))
    async with asyncio.timeout(PATIENCE):
        await INSIDE[0].wait()
    await cancelled(task)
    assert reservations_held(valkey) == 0


@pytest.mark.parametrize("way", [through_a_block_with_a_request, through_a_block_without_one])
@in_a_loop
async def test_a_check_that_is_cancelled_keeps_its_reservation_where_no_middleware_is(
    async_client: AsyncClient, valkey: redis.Redis, way: Way
) -> None:
    task = asyncio.ensure_future(way(async_client))
    async with asyncio.timeout(PATIENCE):
        await INSIDE[0].wait()
    held = reservations_held(valkey)
    await cancelled(task)
    assert reservations_held(valkey) == held > 0


@pytest.mark.parametrize("url", VIEWS)
@in_a_loop
async def test_a_client_that_leaves_while_its_password_is_checked_holds_its_reservation_until_that_has_ended(
    async_client: AsyncClient, valkey: redis.Redis, url: str
) -> None:
    task = asyncio.ensure_future(through(url)(async_client))
    async with asyncio.timeout(PATIENCE):
        await INSIDE[0].wait()
    task.cancel()
    await asyncio.wait({task}, timeout=0)
    assert not task.done()
    assert reservations_held(valkey) > 0
    OVER[0].set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reservations_held(valkey) == 0


@in_a_loop
async def test_a_check_that_does_not_end_is_given_up_at_last(
    async_client: AsyncClient, valkey: redis.Redis, settings: Any
) -> None:
    settings.AXES_RESERVE_LEASE = 0.1
    task = asyncio.ensure_future(through("/in-block/")(async_client))
    async with asyncio.timeout(PATIENCE):
        await INSIDE[0].wait()
    await cancelled(task)
    async with asyncio.timeout(PATIENCE):
        while reservations_held(valkey):  # noqa: ASYNC110  (the thread that renews it may just have done so)
            await asyncio.sleep(0.01)


@in_a_loop
async def test_a_server_that_shuts_down_waits_for_no_check(async_client: AsyncClient, valkey: redis.Redis) -> None:
    task = asyncio.ensure_future(through("/in-block/")(async_client))
    async with asyncio.timeout(PATIENCE):
        await INSIDE[0].wait()
    task.cancel()
    await asyncio.wait({task}, timeout=0)
    await cancelled(task)
    assert reservations_held(valkey) > 0, "they are left to their leases"


@in_a_loop
async def test_what_an_async_view_has_set_in_its_context_is_there_for_a_middleware_around_it(
    async_client: AsyncClient, settings: Any
) -> None:
    settings.MIDDLEWARE = [f"{__name__}.note_context", *settings.MIDDLEWARE]
    OVER[0].set()
    await async_client.post("/in-context/", {"username": "alice"})
    assert NOTED == ["set by the view"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("url", VIEWS)
async def test_a_connection_that_is_closed_releases_its_reservation(valkey: redis.Redis, url: str) -> None:
    body = b"username=alice"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": url,
        "raw_path": url.encode(),
        "query_string": b"",
        "headers": [(b"host", b"testserver"), (b"content-type", b"application/x-www-form-urlencoded")],
        "client": ("203.0.113.7", 1),
        "server": ("testserver", 80),
    }
    connection: Any = cast("Any", ApplicationCommunicator)(get_asgi_application(), scope)
    await connection.send_input({"type": "http.request", "body": body})
    async with asyncio.timeout(PATIENCE):
        await INSIDE[0].wait()
    assert reservations_held(valkey) > 0
    await connection.send_input({"type": "http.disconnect"})
    OVER[0].set()
    await connection.wait(timeout=PATIENCE)
    assert reservations_held(valkey) == 0


@in_a_loop
async def test_of_50_async_blocks_at_once_outside_any_request_5_look_at_the_password(
    settings: Any, valkey: redis.Redis
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_FAILURE_LIMIT = ["username"], 5
    settings.AXES_RESERVE_WAIT = 30
    looked_at: list[int] = []

    async def guess(number: int) -> list[Any]:
        try:
            async with guard.attempt(None, {"username": "alice"}) as attempt:
                looked_at.append(number)
                await asyncio.sleep(0.05)
                await attempt.afailed()
        except AttemptDenied:
            pass
        return states_left()

    left = await asyncio.gather(*(guess(number) for number in range(50)))
    assert len(looked_at) == 5
    assert left == [[]] * 50
    assert reservations_held(valkey) == 0


@pytest.mark.parametrize("without_request", [False, True])
@pytest.mark.parametrize("cache", ["default", "memory"])
def test_what_an_async_block_settles_is_counted_and_recorded(
    settings: Any, drain: Callable[[], int], monkeypatch: pytest.MonkeyPatch, cache: str, without_request: bool
) -> None:
    settings.AXES_CACHE, settings.AXES_LOCKOUT_PARAMETERS = cache, ["username"]
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)

    @in_a_loop
    async def attempts() -> None:
        for right in (False, True, False):
            request = None if without_request else AsyncRequestFactory().post("/")
            async with guard.attempt(request, {"username": "alice"}) as attempt:
                await (attempt.alogged_in("alice") if right else attempt.afailed())
        async with guard.attempt(None, {"username": "alice"}) as attempt:
            await attempt.afailed()
        with pytest.raises(AttemptDenied):
            await guard.attempt(None, {"username": "alice"}).__aenter__()

    attempts()
    drain()
    assert AccessFailureLog.objects.filter(repeats=0).count() == 3
    assert AccessFailureLog.objects.filter(repeats=1).count() == 1
    assert sum(AccessAttempt.objects.values_list("failures_since_start", flat=True)) == 3
    assert AccessLog.objects.get().username == "alice"


@in_a_loop
async def test_an_async_block_that_a_signal_has_settled_counts_nothing_more(store: Store) -> None:
    request = AsyncRequestFactory().post("/")
    async with guard.attempt(request, {"username": "alice"}) as attempt:
        await attempt.afailed()
        await attempt.afailed()
    (state,) = store.states(address_counters())
    assert state.failures == 1
