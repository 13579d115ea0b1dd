"""Attacks through what sites are built of: forms in odd charsets, views, middleware and user models of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import redis
from django.contrib.auth import authenticate
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View

from axes_async import guard
from axes_async.decorators import axes_dispatch
from axes_async.models import AccessFailureLog, AccessLog
from axes_async.utils import reset
from tests import servers
from tests.conftest import PASSWORD
from tests.login.test_async import places_held
from tests.site import CountingBackend
from tests.urls import urlpatterns as site_urls

Drain = Callable[[], int]
Post = Callable[..., Any]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]


@axes_dispatch
def guarded(request: HttpRequest) -> HttpResponse:
    """Answer without a look at what was sent."""
    return HttpResponse("seen", status=401)


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


@axes_dispatch
def blocks_in_blocks(request: HttpRequest) -> HttpResponse:
    """Try one name in a block, and another (or the same) in one within it; tell what is said in ``tell``."""
    outer_name, inner_name, tell = request.POST["outer"], request.POST["inner"], request.POST["tell"]
    with guard.attempt(request, {"username": outer_name}) as outer:
        CountingBackend.count()
        with guard.attempt(request, {"username": inner_name}) as inner:
            if "inner" in tell:
                inner.failed()
        HELD.append(places_held(plain_client()))
        if "outer" in tell:
            outer.failed()
    if "late" in tell:
        outer.failed()
    return HttpResponse("wrong", status=401)


@axes_dispatch
async def blocks_in_tasks(request: HttpRequest) -> HttpResponse:
    """Try names in tasks that go on for a while behind their blocks."""

    async def guess(name: str) -> None:
        async with guard.attempt(request, {"username": name}) as attempt:
            await attempt.afailed()
        await asyncio.sleep(1)

    await asyncio.gather(*(guess(name) for name in ("alice", "bob")))
    return HttpResponse("wrong", status=401)


HELD: list[int] = []
urlpatterns: list[Any] = [
    *site_urls,
    path("guarded/", guarded),
    path("async-view/", AsyncView.as_view()),
    path("blocks/", blocks_in_blocks),
    path("tasks/", blocks_in_tasks),
]


def plain_client() -> Any:
    """Return a client of the server that holds the counters."""
    return redis.Redis.from_url(servers.valkey_url(), decode_responses=True)


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


class KeyBackend(BaseBackend):
    """Looks at keys, and knows none."""

    seen: ClassVar[list[str]] = []

    def authenticate(
        self, request: HttpRequest | None, employee_key: Any = None, pin: Any = None, **kwargs: Any
    ) -> None:
        """Take note."""
        self.seen.append(employee_key)


class Telephone:
    """A name that is no text, as fields of other packages have them."""

    def __init__(self, number: str) -> None:
        """Keep the number."""
        self.number = number

    def __str__(self) -> str:
        return self.number


def name_sent(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> Any:
    """Return the name as an ``AXES_USERNAME_CALLABLE`` does."""
    return credentials["username"] if credentials else None


@pytest.mark.parametrize("charset", ["base64", "rot13", "zlib", "idna", "utf-16", "undefined"])
def test_a_form_in_a_charset_that_is_none_of_texts_is_for_the_view_to_answer(client: Client, charset: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nalice\r\n--x--\r\n'
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    assert client.generic("POST", "/guarded/", body, content_type=kind).status_code == 401


@pytest.mark.parametrize("ask", [None, name_sent])
@pytest.mark.parametrize("kind", [int, Telephone])
def test_a_user_whose_name_is_no_text_logs_in_and_out_and_is_reset(
    monkeypatch: pytest.MonkeyPatch, settings: Any, post: Post, drain: Drain, client: Client, kind: Any, ask: Any
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_USERNAME_CALLABLE = ["username"], ask
    settings.AXES_RESET_ON_SUCCESS = "account"
    User.objects.create_user("5550123", password=PASSWORD)
    monkeypatch.setattr(User, "get_username", lambda user: kind(user.username))
    assert [post("5550123", password).status_code for password in ("wrong", "wrong", PASSWORD)] == [401, 401, 204]
    assert client.post("/logout/").status_code == 302
    drain()
    log = AccessLog.objects.get()
    assert (log.username, log.logout_time is None) == ("5550123", False)
    assert [post("5550123").status_code for _ in range(3)] == [401, 401, 429]
    assert reset(username=kind("5550123")) == 1
    assert post("5550123", PASSWORD).status_code == 204


@pytest.mark.parametrize("rule", ["username", ["ip_address", "username"]])
def test_a_name_that_django_masks_in_its_signal_is_counted_as_itself(
    rf: RequestFactory, settings: Any, drain: Drain, rule: Any
) -> None:
    settings.AUTHENTICATION_BACKENDS = ["axes_async.backends.AxesStandaloneBackend", f"{__name__}.KeyBackend"]
    settings.AXES_USERNAME_FORM_FIELD, settings.AXES_LOCKOUT_PARAMETERS = "employee_key", [rule]
    KeyBackend.seen.clear()
    for key in [*("E-1",) * 5, "E-2"]:
        assert authenticate(rf.post("/"), employee_key=key, pin="0000") is None
    assert KeyBackend.seen == ["E-1", "E-1", "E-1", "E-2"]
    drain()
    assert set(AccessFailureLog.objects.values_list("username", flat=True)) == {"E-1", "E-2"}


def test_a_password_that_a_middleware_further_out_has_tried_gives_its_place_back(
    alice: User, settings: Any, client: Client, valkey: redis.Redis
) -> None:
    *others, ours = settings.MIDDLEWARE
    settings.MIDDLEWARE, settings.AXES_RESERVE_WAIT = [*others, f"{__name__}.BasicAuthentication", ours], 0
    assert [client.get("/home/", headers={"X-Password": PASSWORD}).status_code for _ in range(5)] == [200] * 5
    assert places_held(valkey) == 0
    assert [client.get("/home/", headers={"X-Password": "wrong"}).status_code for _ in range(4)] == [200, 200, 429, 429]
    assert client.get("/home/").status_code == 200


def test_a_class_based_view_with_async_handlers_locks_at_the_limit(client: Client, valkey: redis.Redis) -> None:
    assert client.get("/async-view/").status_code == 200
    assert client.post("/async-view/", {"password": PASSWORD}).status_code == 204
    assert places_held(valkey) == 0
    codes = [client.post("/async-view/", {"password": "wrong"}).status_code for _ in range(5)]
    assert codes == [401, 401, 429, 429, 429]
    assert client.get("/async-view/").status_code == 429
    assert CountingBackend.checks == 4


async def test_of_20_guesses_at_once_at_a_class_based_view_3_are_looked_at(settings: Any) -> None:
    settings.AXES_RESERVE_WAIT = 0.5

    async def guess() -> int:
        return (await AsyncClient().post("/async-view/", {"password": "wrong"})).status_code

    codes = await asyncio.gather(*(guess() for _ in range(20)))
    assert (CountingBackend.checks, sorted(codes)) == (3, [401] * 2 + [429] * 18)


@pytest.mark.parametrize("inner", ["alice", "bob"])
def test_a_block_within_a_block_leaves_its_place_to_the_one_around_it(post: Post, client: Client, inner: str) -> None:
    HELD.clear()
    for tell in ("outer", "late", "inner"):
        client.post("/blocks/", {"outer": "alice", "inner": inner, "tell": tell})
    assert HELD == [1, 1, 0]
    assert client.post("/blocks/", {"outer": "alice", "inner": inner, "tell": ""}).status_code == 429
    assert CountingBackend.checks == 3


def test_a_block_within_a_block_leaves_its_turn_to_the_next_task(settings: Any, client: Client, drain: Drain) -> None:
    settings.AXES_RESERVE_WAIT = 0.3
    assert client.post("/tasks/").status_code == 401
    drain()
    assert set(AccessFailureLog.objects.values_list("username", flat=True)) == {"alice", "bob"}


@pytest.mark.parametrize(("inner", "failures"), [("alice", 1), ("bob", 2)])
def test_a_password_that_both_blocks_tell_of_is_one_failure_and_one_for_each_name(
    settings: Any, client: Client, drain: Drain, inner: str, failures: int
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    client.post("/blocks/", {"outer": "alice", "inner": inner, "tell": "inner, outer"})
    drain()
    assert AccessFailureLog.objects.count() == failures
    assert set(AccessFailureLog.objects.values_list("username", flat=True)) == {"alice", inner}
