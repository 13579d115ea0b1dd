"""Requests in transactions (``ATOMIC_REQUESTS``): what is rolled back takes no failure and no row with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from celery import current_app
from django.contrib.auth import authenticate
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path

from axes_async import guard
from axes_async.decorators import axes_dispatch
from axes_async.middleware import AxesMiddleware
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
from axes_async.signals import user_locked_out
from tests.conftest import PASSWORD, REFUSED
from tests.site import CountingBackend, sign_in

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.urls(__name__)]


def authenticate_and_break(request: HttpRequest) -> HttpResponse:
    """Write something, check a password, and end in an error."""
    Group.objects.create(name="of a request that comes to nothing")
    authenticate(request, username=request.POST["username"], password=request.POST["password"])
    raise RuntimeError


def authenticate_and_roll_back(request: HttpRequest) -> HttpResponse:
    """Write something, check a password, and undo what was written."""
    Group.objects.create(name="of a request that comes to nothing")
    user = authenticate(request, username=request.POST["username"], password=request.POST["password"])
    transaction.set_rollback(True)
    return HttpResponse(status=401 if user is None else 204)


def try_often(request: HttpRequest) -> HttpResponse:
    """Check a password ten times, and undo what was written after each."""
    for _ in range(10):
        with transaction.atomic():
            authenticate(request, username=request.POST["username"], password=request.POST["password"])
            transaction.set_rollback(True)
    return HttpResponse(status=204)


def roll_back_and_fail(request: HttpRequest) -> HttpResponse:
    """Check a password oneself, and tell of the failure in a transaction that takes no statement any more."""
    with guard.attempt(request, {"username": request.POST["username"]}) as attempt:
        CountingBackend.count()
        transaction.set_rollback(True)
        attempt.failed()
    return HttpResponse(status=401)


def ask_oneself(request: HttpRequest) -> HttpResponse:
    """Have another view of this site check a password, and end in an error."""
    Client().post("/sign-in/", request.POST.dict())
    raise RuntimeError


def fail_after_commit(request: HttpRequest) -> HttpResponse:
    """Check a password, and end in an error when all is committed."""
    transaction.on_commit(lambda: 1 // 0)
    authenticate(request, username=request.POST["username"], password=request.POST["password"])
    return HttpResponse(status=401)


async def go_on(request: HttpRequest) -> HttpResponse:
    """Answer, while a task that was started waits to check a password in a transaction."""

    @sync_to_async
    def check() -> None:
        with transaction.atomic():
            authenticate(username=form["username"], password=form["password"])

    async def wait_and_check() -> None:
        await answered.wait()
        await check()

    form = request.POST.dict()
    later.append(asyncio.create_task(wait_and_check()))
    return HttpResponse(status=204)


answered = asyncio.Event()
later: list[asyncio.Task[None]] = []


def undo_refusals(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Serve each request in a transaction, which is rolled back with an answer of 400 or more: a middleware."""

    def serve(request: HttpRequest) -> HttpResponse:
        with transaction.atomic():
            response = get_response(request)
            transaction.set_rollback(response.status_code >= 400)
        return response

    return serve


urlpatterns = [
    path("try-often/", try_often),
    path("roll-back-and-fail/", roll_back_and_fail),
    path("ask-oneself/", ask_oneself),
    path("fail-after-commit/", fail_after_commit),
    path("go-on/", go_on),
    path("break/", authenticate_and_break),
    path("roll-back/", authenticate_and_roll_back),
    path("dispatch/", axes_dispatch(authenticate_and_break)),
    path("sign-in/", sign_in),
]


@pytest.fixture(autouse=True)
def _in_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)


@pytest.fixture(params=["store", "database", "away"])
def decided_by(request: pytest.FixtureRequest, settings: Any) -> str:
    """Have logins decided by the store, by the database alone, or by the database because the store is away."""
    which: str = request.param
    if which == "database":
        settings.AXES_STORE = "database"
    elif which == "away":
        settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": REFUSED}}
    return which


@pytest.mark.parametrize(("url", "status"), [("/break/", 500), ("/roll-back/", 401), ("/dispatch/", 500)])
def test_a_lockout_survives_requests_that_are_rolled_back(
    alice: User, drain: Drain, url: str, status: int, decided_by: str
) -> None:
    client = Client(raise_request_exception=False)

    def enter(url: str, password: str) -> int:
        return client.post(url, {"username": "alice", "password": password}).status_code

    assert [enter(url, "wrong") for _ in range(4)] == [status, status, 429, 429]
    assert Group.objects.count() == 0
    assert enter("/sign-in/", PASSWORD) == 429
    assert CountingBackend.checks == 3
    drain()
    assert AccessAttempt.objects.get().failures_since_start == 3
    assert AccessFailureLog.objects.count() == 5


@pytest.mark.django_db(transaction=False)
def test_a_test_of_a_site_sees_the_lockout_too(
    alice: User, settings: Any, django_capture_on_commit_callbacks: Any
) -> None:
    settings.AXES_TEST_STORE = "database"
    client = Client(raise_request_exception=False)
    with django_capture_on_commit_callbacks() as callbacks:
        answers = [client.post("/roll-back/", {"username": "alice", "password": "wrong"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 429, 429]
    assert AccessAttempt.objects.get().failures_since_start == 3
    assert AccessFailureLog.objects.count() == 4
    assert callbacks == []


@pytest.mark.django_db(transaction=False)
@pytest.mark.parametrize("number", [1, 2])
def test_what_a_test_of_a_site_does_is_nothing_to_the_next(alice: User, settings: Any, number: int) -> None:
    settings.AXES_TEST_STORE = "database"
    Client().get("/nowhere/")
    assert AccessFailureLog.objects.count() == 0
    with transaction.atomic():
        AxesMiddleware(sign_in)(RequestFactory().post("/sign-in/", {"username": "alice", "password": "wrong"}))


def test_a_login_in_a_transaction_is_one(alice: User, drain: Drain, decided_by: str) -> None:
    assert Client().post("/sign-in/", {"username": "alice", "password": PASSWORD}).status_code == 204
    drain()
    assert AccessLog.objects.count() == 1


@pytest.mark.parametrize("limit", [1, 3])
def test_counters_in_a_cache_survive_too(
    alice: User, settings: Any, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AXES_CACHE, settings.AXES_FAILURE_LIMIT = "memory", limit
    monkeypatch.setattr(current_app.conf, "broker_url", None)
    client = Client(raise_request_exception=False)
    form = {"username": "alice", "password": "wrong"}
    assert [client.post("/break/", form).status_code for _ in range(limit)] == [500] * (limit - 1) + [429]
    assert client.post("/sign-in/", {"username": "alice", "password": PASSWORD}).status_code == 429
    assert AccessFailureLog.objects.count() == limit + 1


@pytest.mark.parametrize("decided_by", ["store", "database"], indirect=True)
def test_without_a_worker_rows_are_there_though_the_request_comes_to_nothing(
    alice: User, decided_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_app.conf, "broker_url", None)
    client = Client(raise_request_exception=False)
    assert client.post("/break/", {"username": "alice", "password": "wrong"}).status_code == 500
    assert AccessFailureLog.objects.count() == 1


@pytest.mark.parametrize("decided_by", ["database"], indirect=True)
@pytest.mark.parametrize("url", ["/try-often/", "/ask-oneself/"])
def test_passwords_of_one_request_count_though_each_is_rolled_back(
    alice: User, drain: Drain, url: str, decided_by: str
) -> None:
    client = Client(raise_request_exception=False)
    for _ in range(5):
        client.post(url, {"username": "alice", "password": "wrong"})
    assert CountingBackend.checks == 3
    drain()
    assert AccessAttempt.objects.get().failures_since_start == 3


@pytest.mark.parametrize("decided_by", ["database"], indirect=True)
def test_a_failure_in_a_transaction_that_is_broken_counts(alice: User, decided_by: str) -> None:
    locked: list[str] = []

    def note(username: str, **kwargs: Any) -> None:
        locked.append(username)
        raise RuntimeError("A receiver of the site fails.")

    user_locked_out.connect(note)
    try:
        client = Client(raise_request_exception=False)
        form = {"username": "alice", "password": "wrong"}
        statuses = [client.post("/roll-back-and-fail/", form).status_code for _ in range(6)]
    finally:
        user_locked_out.disconnect(note)
    assert CountingBackend.checks == 3
    assert locked == ["alice"]
    # On SQLite, the lockout is set when the view has ended: what a receiver raises is logged, and the answer stands.
    assert statuses[2] == (401 if connection.vendor == "sqlite" else 429)


@pytest.mark.parametrize("decided_by", ["database"], indirect=True)
@pytest.mark.parametrize(("url", "status"), [("/sign-in/", 401), ("/break/", 500)])
def test_what_a_middleware_rolls_back_counts(
    alice: User, settings: Any, drain: Drain, url: str, status: int, decided_by: str
) -> None:
    settings.MIDDLEWARE = [f"{__name__}.undo_refusals", *settings.MIDDLEWARE]
    form, client = {"username": "alice", "password": "wrong"}, Client(raise_request_exception=False)
    assert [client.post(url, form).status_code for _ in range(4)] == [status, status, 429, 429]
    assert CountingBackend.checks == 3
    drain()
    assert AccessFailureLog.objects.count() == 4


def test_an_event_that_no_outbox_holds_outlasts_the_transaction_of_a_middleware(
    alice: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MIDDLEWARE = [f"{__name__}.undo_refusals", *settings.MIDDLEWARE]
    settings.AXES_CACHE = "memory"
    monkeypatch.setattr(current_app.conf, "broker_url", None)
    assert Client().post("/sign-in/", {"username": "alice", "password": "wrong"}).status_code == 401
    assert AccessFailureLog.objects.count() == 1


@pytest.mark.parametrize("decided_by", ["database"], indirect=True)
def test_an_error_after_the_commit_has_nothing_done_twice(alice: User, drain: Drain, decided_by: str) -> None:
    client = Client(raise_request_exception=False)
    for _ in range(3 + 15):  # Of those that are turned away, the first ten have rows, and then the twentieth.
        client.post("/fail-after-commit/", {"username": "alice", "password": "wrong"})
    drain()
    assert AccessFailureLog.objects.count() == 3 + 10


async def test_a_task_that_outlasts_its_request_has_its_event_written(
    alice: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AXES_CACHE = "memory"
    monkeypatch.setattr(current_app.conf, "broker_url", None)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", False)
    await AsyncClient().post("/go-on/", {"username": "alice", "password": "wrong"})
    answered.set()
    await later.pop()
    assert await AccessFailureLog.objects.acount() == 1
