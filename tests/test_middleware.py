"""The end of a request: reservations are released, and what is switched off leaves no trace."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import redis
from django.contrib.auth import authenticate, login, logout
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path

from axes_async import guard, signals
from axes_async.conf import get_settings
from axes_async.login import reservation
from axes_async.login.state import AxesState, state_of
from axes_async.middleware import AxesMiddleware
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
from tests.actions import counter_keys, kept_keys, reservations_held
from tests.conftest import PASSWORD
from tests.site import check_only, home, sign_in

Post = Callable[..., Any]
SEEN: list[Any] = []

pytestmark = [pytest.mark.django_db]


def ended() -> FrameType:
    """Return the frame of code that has returned."""
    return sys._getframe()


def own_cause(request: HttpRequest) -> HttpResponse:
    """Check a password, and end in an error that is its own cause."""
    authenticate(request, username="alice", password=PASSWORD)
    error = RuntimeError("broken")
    raise error from error


async def async_own_cause(request: HttpRequest) -> HttpResponse:
    """Do as ``own_cause``, in a block."""
    async with guard.attempt(request, {"username": "alice"}):
        error = RuntimeError("broken")
        raise error from error


def authenticate_and_break(request: HttpRequest) -> HttpResponse:
    """Check a password, log nobody in, and end in an exception."""
    authenticate(request, username=request.POST.get("username"), password=request.POST.get("password"))
    raise {"404": Http404, "403": PermissionDenied, "500": RuntimeError}[request.GET["with"]]("broken")


def show_state(request: HttpRequest) -> HttpResponse:
    """Try a password, and keep what the request knows of it."""
    before = request.axes  # type: ignore[attr-defined]
    user = authenticate(None, username=request.POST.get("username"), password=request.POST.get("password"))
    SEEN.append((before, state_of(request), user))
    return HttpResponse(status=204)


def in_and_out(request: HttpRequest) -> HttpResponse:
    """Log in and out again."""
    user = authenticate(request, username="alice", password=PASSWORD)
    assert user is not None
    login(request, user)
    logout(request)
    return HttpResponse(status=204)


def one_after_the_other(request: HttpRequest) -> HttpResponse:
    """Try a password for each name, and tell how the request stands after each."""
    told = []
    for name in request.POST.getlist("username"):
        authenticate(request, username=name, password="wrong")
        state = request.axes  # type: ignore[attr-defined]
        told.append([state.locked_out, state.locked_until, state.failure_limit, state.cooloff])
    return JsonResponse({"told": told})


def lock_out(request: HttpRequest) -> HttpResponse:
    """Say that the client is locked out, as views written for django-axes may."""
    request.axes_locked_out = True  # type: ignore[attr-defined]
    return HttpResponse("a page")


async def alock_out(request: HttpRequest) -> HttpResponse:
    """Do as ``lock_out``."""
    return lock_out(request)


urlpatterns = [
    path("lock-out/", lock_out),
    path("async-lock-out/", alock_out),
    path("one-after-the-other/", one_after_the_other),
    path("home/", home),
    path("sign-in/", sign_in),
    path("check-only/", check_only),
    path("break/", authenticate_and_break),
    path("state/", show_state),
    path("in-and-out/", in_and_out),
    path("me/", lambda request: HttpResponse(request.user.get_username())),
]


@pytest.fixture(autouse=True)
def _urls(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.test_middleware"
    settings.AXES_RESERVE_WAIT = 0
    SEEN.clear()


def test_a_password_check_that_logs_nobody_in_releases_its_reservation(
    alice: User, post: Post, valkey: redis.Redis
) -> None:
    assert [post(password=PASSWORD, url="/check-only/").status_code for _ in range(5)] == [204] * 5
    assert reservations_held(valkey) == 0
    assert counter_keys(valkey) == []


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_exception_after_the_password_check_releases_the_reservation(
    alice: User, client: Client, valkey: redis.Redis, status: int
) -> None:
    client.raise_request_exception = False
    form = {"username": "alice", "password": PASSWORD}
    assert [client.post(f"/break/?with={status}", form).status_code for _ in range(4)] == [status] * 4
    assert reservations_held(valkey) == 0


def test_an_exception_after_a_wrong_password_is_still_a_failure(alice: User, client: Client) -> None:
    client.raise_request_exception = False
    form = {"username": "alice", "password": "wrong"}
    assert [client.post("/break/?with=500", form).status_code for _ in range(4)] == [500, 500, 429, 429]


def test_an_exception_that_no_one_caught_releases_the_reservation(
    alice: User, rf: RequestFactory, valkey: redis.Redis
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        reservation.reserve(request, {"username": "alice"})
        assert reservations_held(valkey) == 1
        raise RuntimeError

    with pytest.raises(RuntimeError):
        AxesMiddleware(view)(rf.post("/"))
    assert reservations_held(valkey) == 0


def test_an_async_view_that_breaks_releases_the_reservation(rf: RequestFactory, valkey: redis.Redis) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        await reservation.areserve(request, {"username": "alice"})
        raise RuntimeError

    async def serve() -> None:
        await AxesMiddleware(view)(rf.post("/"))  # type: ignore[misc]

    with pytest.raises(RuntimeError):
        asyncio.run(serve())
    assert reservations_held(valkey) == 0


@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
def test_a_request_has_one_typed_state_that_code_without_the_request_finds(alice: User, client: Client) -> None:
    form = {"username": " Alice ", "password": "wrong"}
    for _ in range(3):
        client.post("/state/", form)
    first, third = SEEN[0], SEEN[2]
    assert all(isinstance(state, AxesState) and state is same for state, same, _ in SEEN)
    assert (first[0].username, first[0].locked_out, first[0].denied) == (" Alice ", False, False)
    assert (third[0].locked_out, third[0].locked_until, third[0].failure_limit) == (True, -1, 3)
    assert first[0] is not third[0]


@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
def test_a_failure_without_the_request_is_counted_for_the_one_being_served(alice: User, post: Post) -> None:
    assert [post(url="/state/").status_code for _ in range(4)] == [204, 204, 429, 429]


@override_settings(AXES_ENABLED=False)
def test_switched_off_the_package_leaves_no_trace(
    alice: User, post: Post, client: Client, valkey: redis.Redis, drain: Callable[[], int]
) -> None:
    told: list[Any] = []
    signals.user_locked_out.connect(lambda **kwargs: told.append(kwargs), weak=False, dispatch_uid="test")
    try:
        assert [post().status_code for _ in range(10)] == [401] * 10
    finally:
        signals.user_locked_out.disconnect(dispatch_uid="test")
    assert post(password=PASSWORD).status_code == 204
    assert client.post("/in-and-out/").status_code == 204
    assert (told, kept_keys(valkey), drain()) == ([], [], 0)
    assert not any(model.objects.exists() for model in (AccessAttempt, AccessLog, AccessFailureLog))


@override_settings(AXES_ENABLED=False)
def test_switched_off_a_guarded_module_leaves_no_trace(rf: RequestFactory, valkey: redis.Redis) -> None:
    for password in ("wrong", PASSWORD):
        with guard.attempt(rf.post("/"), {"username": "alice"}) as attempt:
            if password == PASSWORD:
                attempt.logged_in("alice")
            else:
                attempt.failed()
    assert kept_keys(valkey) == []


def test_a_sites_own_tests_may_force_a_login(alice: User, client: Client) -> None:
    client.force_login(alice)
    assert client.get("/me/").content == b"alice"


@override_settings(AXES_ENABLED=False)
def test_switched_off_no_request_has_a_state(rf: RequestFactory) -> None:
    request = rf.get("/")
    AxesMiddleware(lambda request: HttpResponse())(request)
    assert not hasattr(request, "axes")


def test_a_lockout_outlives_being_switched_off(alice: User, post: Post) -> None:
    for _ in range(3):
        post()
    with override_settings(AXES_ENABLED=False):
        assert post(password=PASSWORD).status_code == 204
    assert post(password=PASSWORD).status_code == 429


@override_settings(AXES_LOCK_OUT_AT_FAILURE=False)
def test_without_locking_failures_are_recorded_and_nobody_is_denied(
    alice: User, post: Post, drain: Callable[[], int]
) -> None:
    assert not get_settings().lock_out_at_failure
    assert [post().status_code for _ in range(6)] == [401] * 6
    assert drain() == 6
    assert AccessAttempt.objects.get().failures_since_start == 6
    assert not AccessFailureLog.objects.filter(locked_out=True).exists()


@pytest.mark.parametrize("application", [WSGIHandler, ASGIHandler])
def test_a_wrong_setting_keeps_a_web_server_from_starting(application: Callable[[], Any]) -> None:
    application()
    with (
        override_settings(AXES_FAILURE_LIMIT=0),
        pytest.raises(ImproperlyConfigured, match=r"^AXES_FAILURE_LIMIT is 0; it takes"),
    ):
        application()


class BasicAuthentication:
    """Tries the password that stands in a header, at every request and before any view."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        """Keep what comes next."""
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Serve one request."""
        if "X-Password" in request.headers:
            authenticate(request, username="alice", password=request.headers["X-Password"])
        return self.get_response(request)


def test_a_password_that_a_middleware_further_out_has_tried_releases_its_reservation(
    alice: User, settings: Any, client: Client, valkey: redis.Redis
) -> None:
    *others, ours = settings.MIDDLEWARE
    settings.MIDDLEWARE, settings.AXES_RESERVE_WAIT = [*others, f"{__name__}.BasicAuthentication", ours], 0
    assert [client.get("/home/", headers={"X-Password": PASSWORD}).status_code for _ in range(5)] == [200] * 5
    assert reservations_held(valkey) == 0
    assert [client.get("/home/", headers={"X-Password": "wrong"}).status_code for _ in range(4)] == [200, 200, 429, 429]
    assert client.get("/home/").status_code == 200


def test_what_is_told_of_a_lockout_is_not_told_of_the_next_attempt(client: Client, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_COOLOFF_TIME = ["username"], 1
    names = ["alice", "alice", "alice", "alice", "bob"]
    told = client.post("/one-after-the-other/", {"username": names}).json()["told"]
    assert told[-2][0]
    assert told[-1] == [False, 0, 0, None]


@pytest.mark.parametrize("url", ["/lock-out/", "/async-lock-out/"])
@pytest.mark.parametrize(("cooloff", "wait"), [(None, None), (2, "7200")])
def test_a_view_that_says_so_itself_gets_the_lockout_response(
    client: Client, settings: Any, valkey: redis.Redis, url: str, cooloff: int | None, wait: str | None
) -> None:
    settings.AXES_COOLOFF_TIME = cooloff
    response = client.get(url)
    assert (response.status_code, response.get("Retry-After")) == (429, wait)
    assert b"Too many failed login attempts" in response.content
    assert kept_keys(valkey) == []


@override_settings(AXES_ENABLED=False)
def test_switched_off_a_view_may_say_what_it_likes(client: Client) -> None:
    assert client.get("/lock-out/").content == b"a page"


def test_a_request_may_be_copied_deeply_in_the_middle_of_an_attempt() -> None:
    request: Any = RequestFactory().post("/", {"username": "alice"})
    attempt = reservation.reserve(request, {"username": "alice"})
    assert copy.deepcopy(request.axes).attempts == [attempt]


@pytest.mark.parametrize("view", [own_cause, async_own_cause])
def test_an_error_that_is_its_own_cause_ends_the_request(alice: User, valkey: redis.Redis, view: Any) -> None:
    middleware = AxesMiddleware(view)
    request: Any = RequestFactory().post("/", {"username": "alice"})
    with pytest.raises(RuntimeError) as caught:
        asyncio.run(middleware(request)) if middleware.is_async else middleware(request)  # type: ignore[arg-type]
    attempt = reservation.reserve(request, {"username": "alice"}, ended())
    middleware.process_exception(request, caught.value)  # type: ignore[arg-type]
    assert attempt is not None
    assert not attempt.given_up
