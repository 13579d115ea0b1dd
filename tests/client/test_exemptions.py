"""Who is never turned away, who always is, and what is recorded of both."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import redis
from celery import current_app
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.contrib.auth import aauthenticate, authenticate
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path
from django.utils.decorators import method_decorator

from axes_async import guard, signals
from axes_async.client import exemptions
from axes_async.counters.events import worth_a_row
from axes_async.decorators import axes_dispatch, axes_form_invalid
from axes_async.login import reservation, settlement
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter
from tests.actions import counter_keys, in_a_loop, request_from, reservations_held
from tests.conftest import PASSWORD
from tests.site import CountingBackend, async_sign_in, check_only, sign_in

A = "192.0.2.1"

Post = Callable[..., Any]
Drain = Callable[[], int]
LISTED, OTHER = "203.0.113.7", "198.51.100.8"
ASKED: list[tuple[HttpRequest | None, Mapping[str, Any] | None]] = []

pytestmark = [pytest.mark.django_db]


def is_alice(request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> bool:
    """Exempt one user, and remember who asked."""
    ASKED.append((request, credentials))
    return (credentials or {}).get("username") == "alice"


@axes_dispatch
def guarded(request: HttpRequest) -> HttpResponse:
    """Show a page, or refuse a password and tell so by a signal."""
    if request.method == "GET":
        return HttpResponse("form")
    CountingBackend.count()
    credentials = {"username": request.POST["username"]}
    user_login_failed.send(__name__, credentials=credentials, request=request)
    return HttpResponse("wrong", status=401)


def by_get(request: HttpRequest) -> HttpResponse:
    """Try a password that comes with a GET, as in basic authentication."""
    user = authenticate(request, username="alice", password=request.GET["password"])
    return HttpResponse(status=401 if user is None else 204)


class Login(LoginView):
    """Django's login view, which does not show its form to clients that it has locked."""

    template_name = "admin/login.html"

    @axes_form_invalid
    def form_invalid(self, form: Any) -> HttpResponse:
        """Ask again."""
        return HttpResponse("again")


@method_decorator(axes_dispatch, name="dispatch")
class GuardedLogin(Login):
    """The same, guarded throughout."""


staff = AdminSite(name="staff")
urlpatterns = [
    path("sign-in/", sign_in),
    path("async-sign-in/", async_sign_in),
    path("check-only/", check_only),
    path("guarded/", guarded),
    path("by-get/", by_get),
    path("login/", GuardedLogin.as_view()),
    path("form/", Login.as_view()),
]


@pytest.fixture(autouse=True)
def _site(settings: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = "tests.client.test_exemptions"
    settings.AXES_RESERVE_WAIT = 0
    exemptions._refusals.clear()
    ASKED.clear()
    yield
    exemptions._refusals.clear()


def statuses(post: Post, number: int = 5, **extra: Any) -> list[int]:
    return [post(**extra).status_code for _ in range(number)]


def nothing_is_counted(valkey: redis.Redis) -> bool:
    return counter_keys(valkey) == []


# The whitelist.


@pytest.mark.parametrize("name", ["AXES_NEVER_LOCKOUT_WHITELIST", "AXES_ONLY_WHITELIST"])
@pytest.mark.parametrize(
    ("listed", "address"),
    [
        ([LISTED], LISTED),
        ([LISTED], f"::ffff:{LISTED}"),
        (["203.0.113.0/24"], LISTED),
        (["::ffff:203.0.113.0/120"], LISTED),
        (["2001:db8::/32"], "2001:DB8:1::1"),
    ],
)
@pytest.mark.parametrize("url", ["/sign-in/", "/async-sign-in/", "/guarded/"])
def test_a_client_on_the_whitelist_is_never_locked_nor_counted_nor_recorded(
    post: Post, drain: Drain, valkey: redis.Redis, settings: Any, name: str, listed: Any, address: str, url: str
) -> None:
    setattr(settings, name, True)
    settings.AXES_IP_WHITELIST = listed
    assert statuses(post, url=url, REMOTE_ADDR=address) == [401] * 5
    assert nothing_is_counted(valkey)
    assert drain() == 0
    assert CountingBackend.checks == 5


def test_a_failure_of_an_exempt_client_is_told_in_the_log(
    post: Post, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.AXES_NEVER_LOCKOUT_WHITELIST, settings.AXES_IP_WHITELIST = True, [LISTED]
    with caplog.at_level(logging.INFO, "axes_async"):
        post(REMOTE_ADDR=LISTED)
    (record,) = [record for record in caplog.records if "exempt" in record.getMessage()]
    assert record.levelno == logging.INFO
    assert "/sign-in/" in record.getMessage()


def test_a_login_of_an_exempt_client_is_recorded(alice: User, post: Post, drain: Drain, settings: Any) -> None:
    settings.AXES_NEVER_LOCKOUT_WHITELIST, settings.AXES_IP_WHITELIST = True, [LISTED]
    assert post(password=PASSWORD, REMOTE_ADDR=LISTED).status_code == 204
    drain()
    assert AccessLog.objects.get().ip_address == LISTED


def test_a_name_that_others_have_locked_is_open_from_the_whitelist(alice: User, post: Post, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    settings.AXES_NEVER_LOCKOUT_WHITELIST, settings.AXES_IP_WHITELIST = True, [LISTED]
    assert statuses(post, REMOTE_ADDR=OTHER) == [401, 401, 429, 429, 429]
    assert post(password=PASSWORD, REMOTE_ADDR=LISTED).status_code == 204
    assert post(password=PASSWORD, REMOTE_ADDR=OTHER).status_code == 429


def test_a_whitelist_that_no_setting_uses_exempts_nobody(post: Post, settings: Any) -> None:
    settings.AXES_IP_WHITELIST = [LISTED]
    assert statuses(post, REMOTE_ADDR=LISTED) == [401, 401, 429, 429, 429]


def test_others_are_locked_as_ever(post: Post, settings: Any) -> None:
    settings.AXES_NEVER_LOCKOUT_WHITELIST, settings.AXES_IP_WHITELIST = True, [LISTED]
    assert statuses(post, REMOTE_ADDR=OTHER) == [401, 401, 429, 429, 429]


@pytest.mark.parametrize("address", [OTHER, "", "unknown", "2001:db8::1"])
@pytest.mark.parametrize("url", ["/sign-in/", "/async-sign-in/", "/guarded/"])
def test_only_the_whitelist_gets_in_where_the_site_says_so(
    alice: User, post: Post, client: Client, settings: Any, address: str, url: str
) -> None:
    settings.AXES_ONLY_WHITELIST, settings.AXES_IP_WHITELIST = True, [LISTED]
    assert post(password=PASSWORD, url=url, REMOTE_ADDR=address).status_code == 429
    assert client.get("/guarded/", REMOTE_ADDR=address).status_code == 429
    assert CountingBackend.checks == 0
    assert post(password=PASSWORD, REMOTE_ADDR=LISTED).status_code == 204


def test_a_forged_header_gets_nobody_onto_the_whitelist(post: Post, settings: Any) -> None:
    settings.AXES_ONLY_WHITELIST, settings.AXES_IP_WHITELIST = True, [LISTED]
    settings.AXES_TRUSTED_PROXIES = ["10.0.0.1"]
    assert post(REMOTE_ADDR=OTHER, HTTP_X_FORWARDED_FOR=LISTED).status_code == 429
    forged = f"{LISTED}, {OTHER}"
    assert post(REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=forged).status_code == 429
    assert post(REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=LISTED).status_code == 401


# The blacklist.


@pytest.mark.parametrize("address", [LISTED, f"::ffff:{LISTED}", f"{LISTED}:443", "2001:db8:9::1"])
@pytest.mark.parametrize("url", ["/sign-in/", "/async-sign-in/", "/guarded/", "/login/"])
def test_a_client_on_the_blacklist_is_refused_before_its_password_is_looked_at(
    alice: User, post: Post, client: Client, valkey: redis.Redis, settings: Any, address: str, url: str
) -> None:
    settings.AXES_IP_BLACKLIST = ["203.0.113.0/24", "2001:db8:9::/48"]
    answer = post(password=PASSWORD, url=url, REMOTE_ADDR=address)
    assert answer.status_code == 429
    assert "Retry-After" not in answer
    assert client.get("/guarded/", REMOTE_ADDR=address).status_code == 429
    assert CountingBackend.checks == 0
    assert nothing_is_counted(valkey)
    assert post(password=PASSWORD, REMOTE_ADDR=OTHER).status_code == 204


@in_a_loop
async def test_a_client_on_the_blacklist_is_refused_in_async_code(settings: Any) -> None:
    settings.AXES_IP_BLACKLIST = ["127.0.0.1"]
    client = AsyncClient()
    answer = await client.post("/async-sign-in/", {"username": "alice", "password": PASSWORD})
    assert answer.status_code == 429
    assert CountingBackend.checks == 0


def test_refused_attempts_are_recorded_and_are_no_failures(
    alice: User, post: Post, drain: Drain, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.AXES_IP_BLACKLIST, settings.AXES_LOCKOUT_PARAMETERS = [LISTED], ["username", "ip_address"]
    told: list[Any] = []
    signals.user_locked_out.connect(lambda **kwargs: told.append(kwargs), weak=False, dispatch_uid="test")
    try:
        assert statuses(post, 45, REMOTE_ADDR=LISTED) == [429] * 45
    finally:
        signals.user_locked_out.disconnect(dispatch_uid="test")
    drain()
    rows = AccessFailureLog.objects.order_by("id")
    assert [row.repeats for row in rows] == [number for number in range(1, 46) if worth_a_row(number)]
    assert {(row.username, row.ip_address, row.locked_out) for row in rows} == {("alice", LISTED, True)}
    assert AccessAttempt.objects.count() == AttemptCounter.objects.count() == len(told) == 0
    assert caplog.text.count("Refused, by its address") == len(rows)
    assert post(password=PASSWORD, REMOTE_ADDR=OTHER).status_code == 204


@pytest.mark.parametrize("cache", ["memory", "default"])
def test_refused_attempts_are_recorded_on_every_store(
    post: Post, drain: Drain, settings: Any, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)
    settings.AXES_IP_BLACKLIST, settings.AXES_CACHE = [LISTED], cache
    statuses(post, 12, REMOTE_ADDR=LISTED)
    drain()
    assert [row.repeats for row in AccessFailureLog.objects.order_by("repeats")] == list(range(1, 11))


def test_without_failure_logs_nothing_is_recorded_of_refused_attempts(post: Post, drain: Drain, settings: Any) -> None:
    settings.AXES_IP_BLACKLIST, settings.AXES_ENABLE_ACCESS_FAILURE_LOG = [LISTED], False
    assert statuses(post, REMOTE_ADDR=LISTED) == [429] * 5
    assert drain() == 0


def test_refused_clients_are_remembered_within_bounds(
    rf: RequestFactory, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exemptions, "REMEMBERED", 3)
    settings.AXES_IP_BLACKLIST = ["192.0.2.0/24"]
    for number in [*range(5), 4, 4]:
        reservation.reserve(rf.post("/", REMOTE_ADDR=f"192.0.2.{number}"), {"username": "alice"})
    assert {key: count for key, (count, _) in exemptions._refusals.items()} == {
        "192.0.2.2": 1, "192.0.2.3": 1, "192.0.2.4": 3,
    }  # fmt: skip


def test_refusing_comes_before_exempting(post: Post, settings: Any) -> None:
    settings.AXES_IP_BLACKLIST, settings.AXES_IP_WHITELIST = [LISTED], ["203.0.113.0/24"]
    settings.AXES_NEVER_LOCKOUT_WHITELIST, settings.AXES_WHITELIST_CALLABLE = True, is_alice
    assert post(REMOTE_ADDR=LISTED).status_code == 429


def test_a_blacklist_holds_while_lockouts_are_off(post: Post, settings: Any) -> None:
    settings.AXES_IP_BLACKLIST, settings.AXES_LOCK_OUT_AT_FAILURE = [LISTED], False
    assert post(REMOTE_ADDR=LISTED).status_code == 429
    assert statuses(post, REMOTE_ADDR=OTHER) == [401] * 5


# The callable.


@pytest.mark.parametrize("setting", [is_alice, "tests.client.test_exemptions.is_alice"])
def test_who_the_callable_names_is_never_locked_nor_counted(
    alice: User, post: Post, valkey: redis.Redis, settings: Any, setting: Any
) -> None:
    settings.AXES_WHITELIST_CALLABLE = setting
    assert statuses(post) == [401] * 5
    assert nothing_is_counted(valkey)
    assert statuses(lambda **extra: post("bob", **extra)) == [401, 401, 429, 429, 429]
    assert post(password=PASSWORD).status_code == 204


def test_the_callable_is_asked_once_for_an_attempt(post: Post, settings: Any) -> None:
    settings.AXES_WHITELIST_CALLABLE = is_alice
    for name in ("alice", "bob"):
        post(name)
    assert [credentials for _, credentials in ASKED] == [
        {"username": "alice", "password": "wrong"},
        {"username": "bob", "password": "wrong"},
    ]
    assert all(isinstance(request, HttpRequest) for request, _ in ASKED)


def test_the_error_of_the_callable_is_the_sites_to_see(client: Client, settings: Any) -> None:
    calls: list[Any] = []

    def broken(request: Any, credentials: Any) -> bool:
        calls.append(credentials)
        raise TypeError("mine")

    settings.AXES_WHITELIST_CALLABLE = broken
    with pytest.raises(TypeError, match="mine"):
        client.post("/sign-in/", {"username": "alice", "password": "wrong"})
    assert (len(calls), CountingBackend.checks) == (1, 0)


def test_a_place_that_was_taken_before_the_name_was_known_is_given_back(
    post: Post, valkey: redis.Redis, settings: Any
) -> None:
    settings.AXES_WHITELIST_CALLABLE = is_alice
    assert statuses(post, url="/guarded/") == [401] * 5
    assert [credentials for _, credentials in ASKED] == [None, {"username": "alice"}] * 5
    assert reservations_held(valkey) == 0
    assert nothing_is_counted(valkey)


def test_an_exempt_name_opens_no_place_for_another_in_the_same_request(settings: Any) -> None:
    settings.AXES_WHITELIST_CALLABLE = is_alice
    for _ in range(3):
        authenticate(RequestFactory().post("/"), username="bob", password="wrong")
    request = RequestFactory().post("/")
    authenticate(request, username="alice", password="wrong")
    authenticate(request, username="bob", password="wrong")
    assert CountingBackend.checks == 4
    assert guard.look(request).locked_out


def test_an_exempt_login_that_is_not_carried_out_opens_no_place_for_another(alice: User, settings: Any) -> None:
    """The second name must get a reservation, though the attempt of the first is still open."""
    settings.AXES_WHITELIST_CALLABLE = is_alice
    for _ in range(4):
        request = RequestFactory().post("/")
        assert authenticate(request, username="alice", password=PASSWORD) == alice or CountingBackend.checks
        authenticate(request, username="bob", password="wrong")
    assert CountingBackend.checks == 7


def test_a_form_is_shown_again_to_an_exempt_user_at_an_address_that_is_locked(
    alice: User, post: Post, settings: Any
) -> None:
    settings.AXES_WHITELIST_CALLABLE = is_alice
    for _ in range(3):
        post("bob")
    assert (post("bob", url="/form/").status_code, post(url="/form/").status_code) == (429, 200)
    assert post(url="/login/").status_code == 429, "the view asks before it knows the name"
    settings.AXES_WHITELIST_CALLABLE = lambda request, credentials: request.headers.get("X-Exempt") == "yes"
    assert post(url="/login/", HTTP_X_EXEMPT="yes").status_code == 200


@in_a_loop
async def test_an_exempt_user_is_never_locked_in_async_code(settings: Any) -> None:
    settings.AXES_WHITELIST_CALLABLE = is_alice
    for _ in range(5):
        assert await aauthenticate(RequestFactory().post("/"), username="alice", password="wrong") is None
    assert CountingBackend.checks == 5


# GET.


def test_get_is_never_locked_out_where_the_site_says_so(client: Client, post: Post, settings: Any) -> None:
    def get(url: str) -> int:
        return client.get(url).status_code

    for _ in range(3):
        post()
    assert (get("/guarded/"), get("/by-get/?password=wrong")) == (429, 429)
    settings.AXES_NEVER_LOCKOUT_GET = True
    assert (get("/guarded/"), [get("/by-get/?password=wrong") for _ in range(4)]) == (200, [401] * 4)
    assert post().status_code == 429


# The admin alone.


@pytest.fixture
def _only_admin(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls"
    settings.AXES_ONLY_ADMIN_SITE = True


@pytest.mark.usefixtures("_only_admin")
def test_only_the_admin_turns_anybody_away(alice: User, post: Post, drain: Drain) -> None:
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    for url, wrong in (("/sign-in/", 401), ("/async-sign-in/", 401)):
        assert statuses(post, 3, url=url) == [wrong] * 3
    assert post(password=PASSWORD).status_code == 204
    assert post(password=PASSWORD, url="/admin/login/").status_code == 429
    assert post(password=PASSWORD, url="/admin/login/", REMOTE_ADDR=OTHER).status_code == 302
    drain()
    assert AccessFailureLog.objects.filter(locked_out=False).count() == 2
    assert AccessFailureLog.objects.count() == 7


@pytest.mark.usefixtures("_only_admin")
def test_the_admin_locks_by_itself(alice: User, post: Post) -> None:
    assert statuses(post, 4, url="/admin/login/") == [200, 200, 429, 429]
    assert post(password=PASSWORD).status_code == 204


@pytest.mark.usefixtures("_only_admin")
def test_a_blacklist_is_the_admins_alone_too(alice: User, post: Post, settings: Any) -> None:
    settings.AXES_IP_BLACKLIST = [LISTED]
    assert post(password=PASSWORD, REMOTE_ADDR=LISTED).status_code == 204
    assert post(password=PASSWORD, url="/admin/login/", REMOTE_ADDR=LISTED).status_code == 429


class TwoAdmins:
    """URLs with a second admin, which is not the one that its app's name stands for."""

    urlpatterns = (path("admin/", admin.site.urls), path("staff/", staff.urls))


@pytest.mark.parametrize("url", ["/admin/login/", "/staff/login/"])
def test_every_admin_is_guarded(post: Post, settings: Any, url: str) -> None:
    settings.AXES_ONLY_ADMIN_SITE, settings.ROOT_URLCONF = True, TwoAdmins
    assert statuses(post, url=url) == [200, 200, 429, 429, 429]


def test_without_an_admin_in_the_urls_nobody_is_turned_away_and_nothing_breaks(
    alice: User, post: Post, client: Client, drain: Drain, settings: Any
) -> None:
    settings.AXES_ONLY_ADMIN_SITE = True
    assert statuses(post) == [401] * 5
    assert post(password=PASSWORD).status_code == 204
    assert client.get("/guarded/").status_code == 200
    assert authenticate(None, username="alice", password=PASSWORD) == alice
    drain()
    assert AccessFailureLog.objects.count() == 5


@pytest.mark.parametrize("seed", range(12))
def test_a_whitelist_that_changes_its_mind_leaves_no_reservation_and_lets_no_guess_through(
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
            held = reservation.reserve(request, {"username": name} if chance.random() < 0.8 else None)
            assert held is not None
            if held.denied or chance.random() < 0.3:
                continue
            held = reservation.reserve(request, {"username": name})
            assert held is not None
            looked_at += not held.denied and name not in exempt
            settlement.fail(request, {"username": name})
        reservation.release(request.axes.attempts)  # type: ignore[attr-defined]
        assert reservations_held(valkey) == 0
    assert looked_at <= 4
