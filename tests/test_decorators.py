"""The ways in for views and modules of a site's own: axes_dispatch, axes_form_invalid and guard.attempt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.contrib import admin
from django.contrib.auth import authenticate
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View

from axes_async import guard
from axes_async.decorators import axes_dispatch, axes_form_invalid
from axes_async.errors import AttemptDenied
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
from tests.actions import kept_keys, reservations_held
from tests.conftest import PASSWORD
from tests.site import CountingBackend
from tests.waiting import PATIENCE

Post = Callable[..., Any]
CALLS: list[str | None] = []

pytestmark = [pytest.mark.django_db]


@axes_dispatch
def own_login(request: HttpRequest) -> HttpResponse:
    """Check a password without Django's authenticate(), and tell Django's signals."""
    CALLS.append(request.method)
    if request.GET.get("break"):
        raise RuntimeError
    if request.method == "POST" and request.POST.get("password") != PASSWORD:
        user_login_failed.send(sender=__name__, credentials={"username": request.POST["username"]}, request=request)
        return HttpResponse("wrong", status=401)
    return HttpResponse(status=204)


@axes_dispatch
def json_login(request: HttpRequest) -> HttpResponse:
    """Authenticate a name that stands where only this view looks for it."""
    data = json.loads(request.body)["login"]
    user = authenticate(request, username=data["username"], password=data["password"])
    return HttpResponse(status=401 if user is None else 204)


@axes_dispatch
def form_login(request: HttpRequest) -> HttpResponse:
    """Do nothing with the form but say it was seen."""
    return HttpResponse(status=204)


def guarded_login(request: HttpRequest) -> HttpResponse:
    """Check a password in a block of its own."""
    with guard.attempt(request, {"username": request.POST["username"]}) as attempt:
        CALLS.append(request.method)
        if "break" in request.GET:
            raise RuntimeError
        if request.POST["password"] != PASSWORD:
            attempt.failed()
            return HttpResponse("wrong", status=401)
        attempt.logged_in(request.POST["username"])
    return HttpResponse(status=204)


@method_decorator(axes_dispatch, name="dispatch")
class GuardedLoginView(LoginView):
    """Django's own view, decorated as its docs say."""

    template_name = "admin/login.html"
    form_class = AuthenticationForm

    @axes_form_invalid
    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        CALLS.append("form shown again")
        return super().form_invalid(form)


@method_decorator(axes_dispatch, name="dispatch")
class AsyncView(View):
    """Checks a password of its own, asynchronously."""

    async def get(self, request: HttpRequest) -> HttpResponse:
        """Show a page."""
        return HttpResponse("page")

    async def post(self, request: HttpRequest) -> HttpResponse:
        """Check, and tell Django's signal."""
        CountingBackend.checks += 1
        await asyncio.sleep(0.05)
        if request.POST["password"] == PASSWORD:
            return HttpResponse(status=204)
        await user_login_failed.asend(__name__, credentials={"username": "alice"}, request=request)
        return HttpResponse("wrong", status=401)


urlpatterns = [
    path("async-view/", AsyncView.as_view()),
    path("own/", own_login),
    path("json/", json_login),
    path("form/", form_login),
    path("guarded/", guarded_login),
    path("view/", GuardedLoginView.as_view()),
    path("admin/", admin.site.urls),  # The view borrows the admin's template.
]


@pytest.fixture(autouse=True)
def _urls(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.test_decorators"
    settings.AXES_RESERVE_WAIT = 0
    CALLS.clear()


@pytest.mark.parametrize("url", ["/own/", "/guarded/"])
def test_a_module_of_ones_own_locks_exactly_at_the_limit(post: Post, url: str) -> None:
    assert [post(url=url).status_code for _ in range(5)] == [401, 401, 429, 429, 429]
    assert post(url=url, password=PASSWORD).status_code == 429
    assert len(CALLS) == 3


@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_looking_at_a_guarded_view_is_no_attempt(client: Client, valkey: redis.Redis, method: str) -> None:
    assert [getattr(client, method)("/own/").status_code for _ in range(5)] == [204] * 5
    assert kept_keys(valkey) == []


@pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
def test_a_locked_client_does_not_reach_a_guarded_view(post: Post, client: Client, method: str) -> None:
    for _ in range(3):
        post(url="/own/")
    CALLS.clear()
    assert getattr(client, method)("/own/").status_code == 429
    assert CALLS == []


def test_a_guarded_view_holds_a_reservation_only_while_it_runs(post: Post, valkey: redis.Redis) -> None:
    assert [post(url="/form/").status_code for _ in range(5)] == [204] * 5
    assert reservations_held(valkey) == 0


@pytest.mark.parametrize("url", ["/own/?break=1", "/guarded/?break=1"])
def test_an_exception_in_a_guarded_check_counts_as_nothing(post: Post, valkey: redis.Redis, url: str) -> None:
    for _ in range(4):
        with pytest.raises(RuntimeError):
            post(url=url)
    assert len(CALLS) == 4
    assert reservations_held(valkey) == 0


def test_what_a_guarded_module_settles_becomes_rows(post: Post, drain: Callable[[], int]) -> None:
    post(url="/guarded/")
    post(url="/guarded/", password=PASSWORD)
    assert drain() == 2
    assert AccessAttempt.objects.get().failures_since_start == 1
    assert AccessFailureLog.objects.get().username == AccessLog.objects.get().username == "alice"


@pytest.mark.parametrize("rules", [["ip_address"], ["username"], ["ip_address", "username"]], ids=str)
def test_a_name_that_comes_late_is_counted_once_under_every_rule(
    alice: User, client: Client, settings: Any, rules: list[str]
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = rules
    data = {"login": {"username": "alice", "password": "wrong"}}
    answers = [client.post("/json/", data, content_type="application/json").status_code for _ in range(4)]
    assert answers == [401, 401, 429, 429]
    assert CountingBackend.checks == 3


def test_tries_at_a_locked_name_hold_no_reservations_of_the_address(alice: User, client: Client, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username"]

    def attempt(name: str, address: str) -> int:
        data = {"login": {"username": name, "password": PASSWORD if name == "alice" else "wrong"}}
        return client.post("/json/", data, content_type="application/json", REMOTE_ADDR=address).status_code

    for number in range(3):
        attempt("mallory", f"198.51.100.{number}")
    assert [attempt("mallory", "203.0.113.7") for _ in range(4)] == [429] * 4
    assert attempt("alice", "203.0.113.7") == 204


def test_a_login_view_does_not_show_its_form_to_a_client_it_locked(alice: User, post: Post) -> None:
    assert [post(url="/view/").status_code for _ in range(3)] == [200, 200, 429]
    assert CALLS == ["form shown again"] * 2
    assert post(url="/view/", password=PASSWORD).status_code == 429


def test_a_form_that_is_invalid_before_any_password_is_shown_again(post: Post, valkey: redis.Redis) -> None:
    assert [post("", "", url="/view/").status_code for _ in range(4)] == [200] * 4
    assert len(CALLS) == 4
    assert reservations_held(valkey) == 0


def test_a_denied_attempt_raises_before_the_block_is_entered(post: Post, rf: RequestFactory) -> None:
    for _ in range(3):
        post(url="/guarded/")
    with pytest.raises(AttemptDenied), guard.attempt(rf.post("/"), {"username": "alice"}):
        CALLS.append("entered")
    assert "entered" not in CALLS


def test_a_denied_attempt_that_the_view_does_not_catch_is_the_lockout_response(post: Post) -> None:
    for _ in range(3):
        post(url="/guarded/")
    response = post(url="/guarded/", HTTP_ACCEPT="application/json")
    assert (response.status_code, response.json()["failure_limit"]) == (429, 3)


def test_a_block_that_settles_nothing_releases_its_reservation(rf: RequestFactory, valkey: redis.Redis) -> None:
    for _ in range(4):
        with guard.attempt(rf.post("/"), {"username": "alice"}):
            assert reservations_held(valkey) == 1
        assert reservations_held(valkey) == 0


def test_a_module_that_calls_authenticate_in_its_block_is_counted_once(
    alice: User, rf: RequestFactory, drain: Callable[[], int]
) -> None:
    request = rf.post("/")
    with guard.attempt(request, {"username": "alice"}):
        assert authenticate(request, username="alice", password="wrong") is None
    assert drain() == 1
    assert AccessAttempt.objects.get().failures_since_start == 1


def test_without_a_request_a_module_is_guarded_by_name(settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    for _ in range(3):
        with guard.attempt(None, {"username": "alice"}) as attempt:
            attempt.failed()
    with pytest.raises(AttemptDenied):
        guard.attempt(None, {"username": "ALICE"}).__enter__()
    with guard.attempt(None, {"username": "bob"}):
        pass


def test_a_class_based_view_with_async_handlers_locks_at_the_limit(client: Client, valkey: redis.Redis) -> None:
    assert client.get("/async-view/").status_code == 200
    assert client.post("/async-view/", {"password": PASSWORD}).status_code == 204
    assert reservations_held(valkey) == 0
    codes = [client.post("/async-view/", {"password": "wrong"}).status_code for _ in range(5)]
    assert codes == [401, 401, 429, 429, 429]
    assert client.get("/async-view/").status_code == 429
    assert CountingBackend.checks == 4


async def test_of_20_guesses_at_once_at_a_class_based_view_3_are_looked_at(settings: Any) -> None:
    settings.AXES_RESERVE_WAIT = PATIENCE

    async def guess() -> int:
        return (await AsyncClient().post("/async-view/", {"password": "wrong"})).status_code

    codes = await asyncio.gather(*(guess() for _ in range(20)))
    assert (CountingBackend.checks, sorted(codes)) == (3, [401] * 2 + [429] * 18)
