"""Requests in transactions (``ATOMIC_REQUESTS``): what is rolled back takes no failure and no row with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import current_app
from django.contrib.auth import authenticate
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from axes_async.decorators import axes_dispatch
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
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


urlpatterns = [
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
