"""What an attack has tried once: each of these got in, or broke something, before it was mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest
import redis
import redis.asyncio
from celery import current_app
from django.contrib.auth import authenticate, login
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from axes_async import guard
from axes_async.decorators import axes_dispatch
from axes_async.delivery import publisher as outbox
from axes_async.errors import AttemptDenied
from axes_async.login import attempt as attempts
from axes_async.login.state import AxesState
from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter
from axes_async.stores.redis.store import RedisStore
from tests import servers
from tests.actions import failure, request_from, success
from tests.conftest import PASSWORD
from tests.login.test_async import places_held
from tests.site import CountingBackend
from tests.stores.test_concurrency import at_once
from tests.tasks.test_drain import in_store_and_rows
from tests.urls import urlpatterns as site_urls

Post = Callable[..., Any]
Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db]


@axes_dispatch
def own_check(request: HttpRequest) -> HttpResponse:
    """Log in by a field that only this view knows, with a check of its own."""
    user = User.objects.get(username=request.POST["login"])
    if not user.check_password(request.POST["password"]):
        return HttpResponse("wrong", status=401)
    login(request, user, backend="tests.site.CountingBackend")
    return HttpResponse(status=204)


@axes_dispatch
def djangos_check(request: HttpRequest) -> HttpResponse:
    """Log in by a field that only this view knows, with Django's check."""
    user = authenticate(request, username=request.POST["login"], password=request.POST["password"])
    if user is None:
        return HttpResponse("wrong", status=401)
    login(request, user)
    return HttpResponse(status=204)


class EmailBackend(ModelBackend):
    """Takes an e-mail address in place of the name, as many sites do."""

    def authenticate(self, request: HttpRequest | None, username: Any = None, password: Any = None, **more: Any) -> Any:
        """Check the password of the account with this address."""
        user = User.objects.filter(email=username or more.get("email")).first()
        return user if user is not None and user.check_password(password) else None


urlpatterns = [*site_urls, path("own-check/", own_check), path("djangos-check/", djangos_check)]


def states_left() -> list[AxesState]:
    """Return what a block has left behind in the context of this thread."""
    return [value for value in copy_context().values() if isinstance(value, AxesState)]


@pytest.mark.django_db(transaction=True)
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
    assert places_held(valkey) == 0


def test_a_block_outside_any_request_holds_a_place_until_its_end(settings: Any, valkey: redis.Redis) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    for _ in range(4):
        with guard.attempt(None, {"username": "alice"}):
            assert places_held(valkey) == 1
        assert (places_held(valkey), states_left()) == (0, [])
    with pytest.raises(RuntimeError), guard.attempt(None, {"username": "alice"}):
        raise RuntimeError
    assert (places_held(valkey), states_left()) == (0, [])


def test_a_block_that_cannot_be_entered_leaves_nothing_in_the_context(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*args: Any) -> None:
        raise ImproperlyConfigured

    monkeypatch.setattr(attempts, "identify", fault)
    with pytest.raises(ImproperlyConfigured):
        guard.attempt(None, {"username": "alice"}).__enter__()
    assert states_left() == []


def test_an_accept_header_of_20000_characters_is_answered_like_any_other(alice: User, post: Post) -> None:
    statuses = [post(HTTP_ACCEPT="text/html," * 2_000).status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]


def test_an_accept_header_that_django_refuses_to_read_is_answered_in_text(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django 6 raises where 5.2 reads on."""

    def refuse(self: HttpRequest, media_types: list[str]) -> str | None:
        raise ValueError("The header is too long.")

    monkeypatch.setattr(HttpRequest, "get_preferred_type", refuse)
    responses = [post(url="/nobody/", HTTP_ACCEPT="application/json") for _ in range(3)]
    assert responses[-1].status_code == 429
    assert responses[-1]["Content-Type"].startswith("text/plain")


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("how", [True, "account"])
@pytest.mark.parametrize("url", ["/own-check/", "/djangos-check/"])
def test_a_login_to_ones_own_account_does_not_clear_a_name_that_stands_beside_it_in_the_form(
    alice: User, client: Client, settings: Any, how: Any, url: str
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_RESET_ON_SUCCESS = ["username"], how
    User.objects.create_user("mallory", password="mine")
    looked_at = 0
    for _ in range(5):
        looked_at += failure() + failure()
        form = {"username": "alice", "login": "mallory", "password": "mine"}
        client.post(url, form)
    assert looked_at == 3


@pytest.mark.parametrize("how", [True, "account"])
def test_a_login_by_email_clears_the_name_and_the_email(
    alice: User, client: Client, settings: Any, drain: Drain, redis_store: RedisStore, how: Any
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_RESET_ON_SUCCESS = ["username"], how
    settings.AUTHENTICATION_BACKENDS = ["axes_async.backends.AxesStandaloneBackend", "tests.test_attacks.EmailBackend"]
    User.objects.filter(pk=alice.pk).update(email="alice@example.com")
    failure("alice")
    for _ in range(2):
        client.post("/sign-in/", {"username": "alice@example.com", "password": "wrong"})
    drain()
    assert AccessAttempt.objects.count() == AttemptCounter.objects.count() == 2
    answer = client.post("/sign-in/", {"username": "alice@example.com", "password": PASSWORD})
    assert answer.status_code == 204
    drain()
    assert in_store_and_rows(redis_store) == ({}, {})
    assert AccessAttempt.objects.count() == 0


def test_credentials_that_name_an_email_alone_are_counted_on_the_username_rule(alice: User, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    for number in range(6):
        assert authenticate(request_from(f"192.0.2.{number}"), email="alice@example.com", password="wrong") is None
    assert CountingBackend.checks == 3


@pytest.mark.parametrize("padded", ["alice" + " " * 1_100, " alice", "\t" * 1_100 + "alice", "ALICE\u3000"])
def test_a_name_that_is_padded_is_the_same_name(settings: Any, padded: str) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    looked_at = [failure(name, f"192.0.2.{number}") for number, name in enumerate(["alice", padded, "alice", padded])]
    assert looked_at == [True, True, True, False]


def test_a_client_that_decodes_responses_is_refused_by_name(settings: Any) -> None:
    settings.AXES_REDIS_CLIENT = lambda: redis.Redis.from_url(servers.valkey_url(), decode_responses=True)
    with pytest.raises(ImproperlyConfigured, match="AXES_REDIS_CLIENT"):
        failure()


@pytest.mark.parametrize(
    "returned",
    [None, "redis://127.0.0.1/0", redis.Redis, redis.asyncio.Redis()],
    ids=["nothing", "a URL", "a class", "an async client"],
)
def test_what_is_no_client_is_refused_by_name_and_value(settings: Any, returned: Any) -> None:
    settings.AXES_REDIS_CLIENT = lambda: returned
    with pytest.raises(ImproperlyConfigured, match=r"AXES_REDIS_CLIENT returned .*it takes a callable"):
        failure()
    assert [error.id for error in run_checks(tags=["axes_async"])] == ["axes_async.E001"]


def test_a_client_of_the_sites_own_counts_and_locks(alice: User, settings: Any, post: Post, drain: Drain) -> None:
    with redis.Redis.from_url(servers.valkey_url()) as own:
        settings.AXES_REDIS_CLIENT = lambda: own
        assert post(password=PASSWORD).status_code == 204
        assert [post().status_code for _ in range(4)] == [401, 401, 429, 429]
        assert drain() == 5
        assert AccessAttempt.objects.get().failures_since_start == 3


@pytest.fixture
def _a_broker_untried() -> Iterator[None]:
    """Have no connection and no breaker left from another broker, nor leave any to the next test."""
    outbox._producers.cache_clear()
    outbox._broker.succeeded()
    yield
    outbox._producers.cache_clear()
    outbox._broker.succeeded()


@pytest.mark.usefixtures("_a_broker_untried")
@pytest.mark.parametrize("cache", ["default", "memory"])
@pytest.mark.parametrize("url", ["foo://nowhere", "redis://127.0.0.1:notaport/0", "sqs://"])
def test_a_broker_url_that_cannot_be_used_stops_no_login_and_loses_no_event(
    alice: User, settings: Any, post: Post, drain: Drain, monkeypatch: pytest.MonkeyPatch, url: str, cache: str
) -> None:
    settings.AXES_CACHE = cache
    monkeypatch.setitem(current_app.conf, "broker_url", url)
    outbox._broker.succeeded()
    assert post().status_code == 401
    outbox._broker.succeeded()
    assert post(password=PASSWORD).status_code == 204
    drain()
    assert AccessFailureLog.objects.count() == 1
    assert success()
