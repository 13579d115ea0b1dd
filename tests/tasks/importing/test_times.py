"""Times at the ends of all times: a ban for ever is one, and no page and no login stumbles over them."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from axes_async.clock import EARLIEST, LATEST, as_datetime
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter
from tests import old_tables
from tests.tasks.importing.old_site import COMMITS, NOON, attempts, move

pytestmark = [
    pytest.mark.django_db(transaction=COMMITS),
    pytest.mark.database,
    pytest.mark.usefixtures("_tables_go", "_noon", "_axes"),
]

A, B, C = "203.0.113.7", "198.51.100.8", "192.0.2.9"
LAST = datetime(9998, 12, 31, tzinfo=UTC)
FIRST = datetime(1, 1, 1, tzinfo=UTC)
TIERS = [(3, timedelta(minutes=5)), (6, timedelta(days=3000))]
RULES: dict[str, dict[str, Any]] = {
    "no cool-off": {},
    "cool-off": {"AXES_COOLOFF_TIME": timedelta(days=30)},
    "tiers": {"AXES_LOCKOUT_TIERS": TIERS, "AXES_COOLOFF_TIME": timedelta(days=300)},
    "window": {"AXES_USE_ATTEMPT_EXPIRATION": True, "AXES_COOLOFF_TIME": timedelta(days=30)},
}


@pytest.fixture(params=RULES)
def rules(request: pytest.FixtureRequest, settings: Any) -> str:
    """Have lockouts of every kind."""
    for name, value in RULES[request.param].items():
        setattr(settings, name, value)
    return str(request.param)


@pytest.mark.parametrize("far", ["expires_at", "attempt_time"])
def test_a_ban_for_ever_is_one_and_breaks_no_login_and_no_page(
    rules: str, far: str, post: Callable[..., Any], admin_client: Client
) -> None:
    rows = [{"ip_address": A, "failures_since_start": 9}, {"ip_address": B, "failures_since_start": 2}]
    attempts(*rows, at=LAST if far == "attempt_time" else NOON)
    for pk in (1, 2):
        old_tables.expire(pk, LAST)
    assert move().endswith("1 lockouts in force.\n")
    assert [post(REMOTE_ADDR=A).status_code for _ in range(2)] == [429, 429]
    assert [post(REMOTE_ADDR=B).status_code for _ in range(2)] == [429, 429]
    assert post(REMOTE_ADDR=C).status_code == 401
    for page in ("lockout", "accessattempt"):
        assert admin_client.get(reverse(f"admin:axes_async_{page}_changelist")).status_code == 200


def test_what_the_import_makes_of_times_is_clamped(rules: str) -> None:
    latest = as_datetime(LATEST)
    attempts({"failures_since_start": 9}, at=LAST)
    old_tables.insert("axes_accesslog", {"logout_time": LAST}, at=NOON)
    move()
    counter, attempt = AttemptCounter.objects.get(), AccessAttempt.objects.get()
    ends = [counter.expires_at, counter.locked_until, attempt.expires_at]
    assert set(ends) <= {None, latest}
    assert (latest in ends) == (rules != "no cool-off")
    assert set(filter(None, counter.ends.split(","))) == ({str(LATEST)} if rules == "window" else set())
    assert [attempt.attempt_time, AccessLog.objects.get().logout_time] == [latest, latest]


@pytest.mark.parametrize("table", ["accessattempt", "accesslog", "accessfailurelog"])
def test_times_before_1970_break_no_list_and_no_export(table: str, settings: Any, admin_client: Client) -> None:
    settings.TIME_ZONE = "America/New_York"
    AccessLog.objects.all().delete()
    old_tables.insert(f"axes_{table}", {"username": "old"}, {"username": "older"}, at=FIRST)
    move()
    page = admin_client.get(reverse(f"admin:axes_async_{table}_changelist"))
    assert page.status_code == 200
    assert b"older" in page.content
    out = io.StringIO()
    call_command("axes_export", stdout=out)
    assert out.getvalue().count("1970-01-02T00:00:00") == (0 if table == "accessattempt" else 2)


@pytest.mark.parametrize(
    ("zone", "use_tz"), [("Asia/Tokyo", False), ("America/New_York", False), ("Pacific/Kiritimati", True)]
)
@pytest.mark.parametrize(("at", "becomes"), [("0001-01-01 00:00:00", EARLIEST), ("9999-12-31 23:59:59", LATEST)])
def test_times_at_the_ends_are_safe_in_every_zone(
    settings: Any, zone: str, use_tz: bool, at: str, becomes: int, post: Callable[..., Any]
) -> None:
    settings.TIME_ZONE, settings.USE_TZ = zone, use_tz
    old_tables.insert("axes_accessfailurelog", {}, at=at)
    attempts({"ip_address": A, "failures_since_start": 3}, at=at)
    move()
    assert AccessFailureLog.objects.get().attempt_time == as_datetime(becomes)
    assert AccessAttempt.objects.get().attempt_time == as_datetime(becomes)
    assert post(REMOTE_ADDR=A).status_code == 429


@pytest.mark.parametrize(("zone", "use_tz"), [("Asia/Tokyo", False), ("America/New_York", True)])
def test_other_times_stay_what_they_are(settings: Any, zone: str, use_tz: bool) -> None:
    settings.TIME_ZONE, settings.USE_TZ = zone, use_tz
    at = as_datetime(1_777_636_799_123)
    old_tables.insert("axes_accesslog", {"logout_time": at}, {"logout_time": None}, at=at)
    attempts({}, at=at)
    old_tables.expire(1, at + timedelta(days=1))
    move()
    assert list(AccessLog.objects.order_by("pk").values_list("attempt_time", "logout_time")) == [(at, at), (at, None)]
    assert AccessAttempt.objects.get().attempt_time == at
