"""What a login would meet now, and why: by command and on a page."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client, RequestFactory, override_settings
from django.urls import reverse

from axes_async import guard
from axes_async.models import AttemptCounter
from axes_async.stores.redis.store import RedisStore
from tests.actions import failure
from tests.conftest import REFUSED

Drain = Callable[[], int]
IP = "192.0.2.1"
BACKEND = "tests.site.CountingBackend"
NO_STORE = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REFUSED}}

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("axes_explain", *arguments, stdout=out)
    return out.getvalue()


def told(*arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return answer


def test_a_client_that_nobody_has_seen_is_checked_with_all_failures_left() -> None:
    seen = told("alice", "--ip", IP)
    assert (seen["outcome"], seen["failures_left"], seen["asked"]) == ("checked", 3, "store")
    assert seen["counters"] == [
        {
            "counter": f"address {IP}",
            "store": {
                "failures": 0, "limit": 3, "reservations": 0, "locked": False, "seconds_left": None, "turned_away": 0
            },
            "rows": None,
        }
    ]  # fmt: skip
    assert "The password would be checked. Failures until the next lockout: 3." in run("alice", "--ip", IP)


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=12))
def test_a_lockout_is_explained_from_store_and_rows(drain: Drain) -> None:
    with time_machine.travel(datetime.now(UTC), tick=False):
        for _ in range(5):
            failure()
        drain()
        failure()
        seen = told("alice", "--ip", IP)
        (counter,) = seen["counters"]
        assert (seen["outcome"], counter["store"]["turned_away"], counter["rows"]["turned_away"]) == ("locked", 3, None)
        assert counter["store"]["seconds_left"] == counter["rows"]["seconds_left"] == 720
        text = run("--ip", IP)
    assert "The attempt would be turned away: locked for 12\xa0minutes." in text
    assert "  store 3 of 3; locked for 12\xa0minutes; turned away: 3; password checks under way: 0" in text


def test_password_checks_that_take_all_that_is_left_are_told() -> None:
    requests = [RequestFactory().post("/", REMOTE_ADDR=IP) for _ in range(3)]
    blocks = [guard.attempt(request, {"username": "alice"}) for request in requests]
    for block in blocks:
        block.__enter__()
    seen = told("alice", "--ip", IP)
    assert (seen["outcome"], seen["counters"][0]["store"]["reservations"]) == ("busy", 3)
    for block in blocks:
        block.__exit__(None, None, None)
    assert told("alice", "--ip", IP)["outcome"] == "checked"


def everybody(request: object, credentials: object) -> bool:
    return True


@pytest.mark.parametrize(
    ("settings_", "outcome", "setting"),
    [
        ({"AXES_ENABLED": False}, "off", ""),
        ({"AXES_IP_BLACKLIST": [IP]}, "refused", "AXES_IP_BLACKLIST"),
        ({"AXES_ONLY_WHITELIST": True, "AXES_IP_WHITELIST": ["10.0.0.1"]}, "refused", "AXES_ONLY_WHITELIST"),
        ({"AXES_NEVER_LOCKOUT_WHITELIST": True, "AXES_IP_WHITELIST": [IP]}, "exempt", "AXES_IP_WHITELIST"),
        pytest.param({"AXES_WHITELIST_CALLABLE": everybody}, "exempt", "AXES_WHITELIST_CALLABLE", id="callable"),
        ({"AXES_LOCKOUT_PARAMETERS": ["user_agent"]}, "no rule", ""),
        ({"CACHES": NO_STORE, "AXES_ON_STORE_FAILURE": "deny"}, "unavailable", ""),
        ({"CACHES": NO_STORE, "AXES_ON_STORE_FAILURE": "allow"}, "unchecked", ""),
        ({"CACHES": NO_STORE}, "checked", ""),
        ({"AXES_LOCK_OUT_AT_FAILURE": False}, "checked", ""),
    ],
    ids=str,
)
def test_settings_that_decide_before_any_counter_are_named(
    settings: Any, settings_: dict[str, Any], outcome: str, setting: str
) -> None:
    for name, value in settings_.items():
        setattr(settings, name, value)
    seen = told("alice", "--ip", IP)
    assert (seen["outcome"], seen["setting"]) == (outcome, setting)
    assert setting in run("alice", "--ip", IP)


def test_outside_of_the_admin_a_failure_counts_and_never_locks(settings: Any) -> None:
    assert told("alice", "--ip", IP)["exemption"] == "none"
    settings.AXES_ONLY_ADMIN_SITE = True
    assert told("alice", "--ip", IP)["exemption"] == "none"  # It is the admin's login that is explained then.


def test_name_and_address_are_told_as_they_count(settings: Any) -> None:
    settings.AXES_TRUSTED_PROXIES = ["2001:db8::/32"]
    text = run("ALICE", "--ip", "2001:db8::1")
    assert "2001:db8::1 counts as 2001:db8::/64." in text
    assert "ALICE counts as alice." in text
    assert "2001:db8::1 is a trusted proxy" in text


def test_lockouts_of_the_name_elsewhere_are_listed(settings: Any, drain: Drain) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
    for _ in range(3):
        failure(address="203.0.113.5")
    drain()
    seen = told("alice", "--ip", IP)
    assert (seen["outcome"], seen["other_lockouts"]) == ("checked", ["alice from 203.0.113.5"])
    assert told("alice")["outcome"] == "no rule"
    assert "Other lockouts of this name or address: alice from 203.0.113.5" in run("alice")


def test_explaining_changes_nothing(redis_store: RedisStore, drain: Drain) -> None:
    failure()
    before = redis_store.size().events
    told("alice", "--ip", IP)
    told("bob", "--ip", IP)
    assert redis_store.size().events == before
    drain()
    assert [row.failures for row in AttemptCounter.objects.all()] == [1]


@pytest.mark.parametrize("arguments", [(), ("",), (" ",), ("alice", "--ip", "nonsense"), ("--ip", "")], ids=str)
def test_what_names_nobody_is_refused_with_status_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as error:
        run(*arguments)
    assert error.value.returncode == 2


@pytest.fixture
def page(db: None) -> Callable[..., str]:
    """Return a function that asks the page."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"), BACKEND)

    def page(**query: str) -> str:
        response = client.get(reverse("admin:axes_async_lockout_explain"), query)
        assert response.status_code == 200
        return str(response.content.decode())

    return page


def test_the_page_tells_what_the_command_tells(page: Callable[..., str], drain: Drain) -> None:
    for _ in range(3):
        failure()
    drain()
    told = page(username="alice", ip=IP)
    assert "The attempt would be turned away: locked until unlocked." in told
    assert f"address {IP}" in told
    assert "3 of 3; locked until unlocked; turned away: 0" in told
    assert "As the store has it now." in told


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, "This page was asked for from 127.0.0.1 (REMOTE_ADDR 127.0.0.1, X-Forwarded-For -)."),
        ({"username": "", "ip": ""}, "Enter a username, an IP address, or both."),
        ({"ip": "nonsense"}, "This is not an IP address."),
        ({"username": "<script>", "ip": IP}, "&lt;script&gt; counts as"),
    ],
    ids=str,
)
def test_the_page_takes_whatever_is_asked(page: Callable[..., str], query: dict[str, str], text: str) -> None:
    told = page(**query)
    assert text in told
    assert "<script>" not in told.split('id="content"')[1].split("</main>")[0]


def no_name(username: str) -> None:
    """Say of every text that it is no name."""


def test_the_page_takes_a_text_that_the_site_says_is_no_name(page: Callable[..., str], settings: Any) -> None:
    settings.AXES_USERNAME_CANONICALIZER = no_name
    assert "Enter a username, an IP address, or both." in page(username="guest", ip=IP)


def test_the_page_needs_the_permission_to_look(db: None) -> None:
    client = Client()
    client.force_login(User.objects.create_user("clerk", is_staff=True), BACKEND)
    assert client.get(reverse("admin:axes_async_lockout_explain")).status_code == 403
