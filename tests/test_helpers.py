"""What code that was written for django-axes calls, under the names that it knows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path

from axes_async import guard, helpers
from axes_async.errors import StoreUnavailable
from axes_async.handlers.proxy import AxesProxyHandler
from tests.actions import counter_keys, failure, kept_keys, request_from
from tests.conftest import PASSWORD
from tests.site import sign_in

Post = Callable[..., Any]
NO_STORE = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}

pytestmark = [pytest.mark.django_db]


def ask_first(request: HttpRequest) -> HttpResponse:
    """Ask whether the client may try, and answer in a way of one's own if not."""
    if not AxesProxyHandler.is_allowed(request, {"username": request.POST["username"]}):
        return HttpResponse("not now", status=403)
    return sign_in(request)


def answer_first(request: HttpRequest) -> HttpResponse:
    """Answer with the lockout response, whoever asks."""
    response = helpers.get_lockout_response(request, credentials={"username": "bob"})
    assert isinstance(response, HttpResponse)
    return response


urlpatterns = [path("sign-in/", sign_in), path("ask-first/", ask_first), path("answer-first/", answer_first)]


@pytest.fixture(autouse=True)
def _urls(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.test_helpers"


def test_the_client_is_the_one_that_is_counted(rf: RequestFactory) -> None:
    headers = {"User-Agent": "curl/8", "Accept": "text/html"}
    request = rf.post("/login/", {"username": "alice"}, REMOTE_ADDR="::ffff:203.0.113.7", headers=headers)
    assert helpers.get_client_ip_address(request) == "203.0.113.7"
    assert helpers.get_client_username(request) == "alice"
    assert helpers.get_client_username(request, {"username": "bob"}) == "bob"
    assert helpers.get_client_user_agent(request) == "curl/8"
    assert helpers.get_client_path_info(request) == "/login/"
    assert helpers.get_client_http_accept(request) == "text/html"


@pytest.mark.parametrize(("setting", "length"), [(None, None), (2, timedelta(hours=2)), (lambda request: 0.5, 1800)])
def test_the_cool_off_is_a_timedelta(rf: RequestFactory, setting: Any, length: Any) -> None:
    with override_settings(AXES_COOLOFF_TIME=setting, AXES_COOLOFF_MESSAGE="Soon.", AXES_PERMALOCK_MESSAGE="Never."):
        expected = timedelta(seconds=length) if isinstance(length, int) else length
        assert helpers.get_cool_off(rf.get("/")) == expected
        assert helpers.get_lockout_message() == ("Never." if setting is None else "Soon.")


def test_the_handler_tells_failures_and_lockouts_and_changes_nothing(valkey: redis.Redis) -> None:
    request = request_from("192.0.2.1")
    seen = []
    for _ in range(3):
        failure()
        seen.append((AxesProxyHandler.get_failures(request), AxesProxyHandler.is_locked(request)))
    assert seen == [(1, False), (2, False), (3, True)]
    assert not AxesProxyHandler.is_allowed(request)
    assert AxesProxyHandler.is_allowed(request_from("192.0.2.2"))
    assert AxesProxyHandler.get_failures(request_from("192.0.2.2")) == 0
    assert len(counter_keys(valkey)) == 1
    assert AxesProxyHandler.reset_attempts(ip_address="192.0.2.1") == 1
    assert AxesProxyHandler.is_allowed(request)


@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
def test_the_handler_goes_by_the_name_it_is_given() -> None:
    for _ in range(3):
        failure()
    request = request_from("192.0.2.2")
    assert [AxesProxyHandler.is_allowed(request, {"username": name}) for name in ("ALICE", "bob")] == [False, True]


@override_settings(CACHES=NO_STORE, AXES_ON_STORE_FAILURE="deny")
def test_without_a_store_nobody_is_allowed() -> None:
    assert not AxesProxyHandler.is_allowed(request_from("192.0.2.1"))
    with pytest.raises(StoreUnavailable):
        AxesProxyHandler.is_locked(request_from("192.0.2.1"))


def test_a_view_that_asks_first_has_the_last_word(alice: User, post: Post) -> None:
    assert [post(url="/ask-first/").status_code for _ in range(4)] == [401, 401, 429, 403]
    assert post(password=PASSWORD, url="/ask-first/").content == b"not now"


@override_settings(AXES_COOLOFF_TIME=1)
def test_a_view_may_ask_for_the_lockout_response(client: Client, post: Post, valkey: redis.Redis) -> None:
    response = client.get("/answer-first/", headers={"Accept": "application/json"})
    assert (response.status_code, response["Retry-After"]) == (429, "3600")
    assert (response.json()["username"], response.json()["cooloff_time"]) == ("bob", "PT1H")
    assert kept_keys(valkey) == []
    for _ in range(3):
        post()
    response = client.get("/answer-first/", headers={"Accept": "application/json"})
    assert (response.json()["failure_limit"], response.json()["username"]) == (3, "bob")


@override_settings(AXES_ENABLED=False)
def test_switched_off_everybody_is_allowed() -> None:
    for _ in range(3):
        failure()
    request = request_from("192.0.2.1")
    assert AxesProxyHandler.is_allowed(request)
    assert AxesProxyHandler.get_failures(request) == 0


@pytest.mark.parametrize(
    ("name", "value", "cooloff"),
    [
        ("AXES_LOCKOUT_TIERS", [(3, timedelta(minutes=5)), (6, timedelta(hours=1))], timedelta(minutes=5)),
        ("AXES_LOCKOUT_RULES", [{"parameters": "username", "cooloff": 1}], timedelta(hours=1)),
        ("AXES_LOCKOUT_RULES", [{"parameters": "username", "cooloff": 1}, {"parameters": "ip_address"}], None),
    ],
)
def test_the_cool_off_is_that_of_the_rules(
    rf: RequestFactory, settings: Any, name: str, value: Any, cooloff: timedelta | None
) -> None:
    setattr(settings, name, value)
    assert helpers.get_cool_off(rf.get("/")) == cooloff
    assert ("administrator" in helpers.get_lockout_message()) is (cooloff is None)


def test_a_lockout_tells_how_long_its_tier_lasts(rf: RequestFactory, settings: Any) -> None:
    settings.AXES_LOCKOUT_TIERS = [(2, timedelta(minutes=5)), (3, timedelta(hours=1))]
    for _ in range(2):
        failure()
    assert guard.look(request_from("192.0.2.1")).cooloff == 300


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [
        ({"AXES_IP_BLACKLIST": ["192.0.2.0/24"]}, False),
        ({"AXES_IP_WHITELIST": ["192.0.2.1"], "AXES_NEVER_LOCKOUT_WHITELIST": True}, True),
        ({"AXES_ENABLED": False}, True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_who_is_refused_or_exempt_is_so_whatever_counts(setting: dict[str, Any], allowed: bool) -> None:
    for _ in range(0 if "AXES_IP_BLACKLIST" in setting else 3):
        failure()
    with override_settings(**setting):
        assert AxesProxyHandler.is_allowed(request_from("192.0.2.1"), {"username": "alice"}) is allowed
