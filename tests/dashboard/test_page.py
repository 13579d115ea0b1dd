"""The dashboard in the admin: who may see it, what it says, and that it costs the same whatever the logs hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from axes_async.dashboard.charts import stacked
from axes_async.dashboard.figures import SPANS, history, locked_now, now_figures, top_values
from axes_async.models import AccessFailureLog, AttemptCounter
from axes_async.models.rollups import AttemptRollup, TopValues
from tests.actions import failure, success

Drain = Callable[[], int]
URL = "/admin/axes_async/dashboard/"
NOW = datetime(2026, 5, 8, 12, 30, 20, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client: Client) -> User:
    user = User.objects.create_user("staff", is_staff=True)
    client.force_login(user, "tests.site.CountingBackend")
    return user


def allow(user: User, codename: str) -> None:
    user.user_permissions.add(Permission.objects.get(codename=codename))


def rolled_up(minutes_ago: float, **values: Any) -> None:
    minute = (NOW - timedelta(minutes=minutes_ago)).replace(second=0)
    AttemptRollup.objects.create(minute=minute, **values)


def test_shown_to_those_alone_that_have_its_own_permission(staff: User, client: Client) -> None:
    allow(staff, "view_accessattempt")
    assert client.get(URL).status_code == 403
    assert URL not in client.get("/admin/").content.decode()
    allow(staff, "view_dashboard")
    assert client.get(URL).status_code == 200
    assert URL in client.get("/admin/").content.decode()


def test_asks_strangers_to_log_in(client: Client) -> None:
    response = client.get(URL)
    assert response.status_code == 302
    assert response["Location"].startswith("/admin/login/")


def test_attempts_are_on_the_page(admin_client: Client, alice: User, drain: Drain) -> None:
    for _ in range(5):
        failure("mallory", "203.0.113.7", "Hydra")
    success("alice", "192.0.2.9")
    drain()
    page = admin_client.get(URL).content.decode()
    for text in ("mallory", "203.0.113.7", "203.0.113.0/24", "Hydra", "failed <b>3</b>", "turned away <b>2</b>"):
        assert text in page
    assert "address <b>1</b>" in page  # Lockouts by rule.


@pytest.mark.django_db(transaction=True)
def test_it_says_how_long_the_oldest_event_has_waited(admin_client: Client, drain: Drain) -> None:
    failure()
    assert re.search(r"[12] <small>events, 0\xa0minutes</small>", admin_client.get(URL).content.decode())
    drain()
    page = admin_client.get(URL).content.decode()
    assert "0 <small>events</small>" in page, page[page.index("Waiting to be") :][:200]


def test_without_attempts_there_is_nothing_to_draw(admin_client: Client) -> None:
    page = admin_client.get(URL).content.decode()
    assert "None in this time." in page
    assert 'role="img"' not in page


@pytest.mark.parametrize("span", ["", "?span=24h", "?span=7d", "?span=nonsense", "?span=%00", "?span=1h&span=7d"])
def test_any_span_is_a_page(admin_client: Client, drain: Drain, span: str) -> None:
    failure()
    drain()
    page = admin_client.get(URL + span).content.decode()
    assert page[page.index('class="axes-spans"') :].count('aria-current="page"') == 1


def test_no_script_no_style_and_nothing_from_elsewhere(admin_client: Client, drain: Drain) -> None:
    failure("<script>alert(1)</script>", agent='"><img src=x onerror=alert(1)>')
    drain()
    page = admin_client.get(URL).content.decode()
    ours = page[page.index('<div id="content-main"') : page.index("<!-- SVGs -->")]
    assert not re.search(r"<script|<img|style=|on\w+=\"|https?://", ours)
    assert "&lt;script&gt;" in ours


def test_costs_the_same_whatever_the_logs_hold(admin_client: Client, drain: Drain) -> None:
    admin_client.get(URL)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(URL)
    for number in range(50):
        failure(f"name {number}", f"203.0.113.{number}")
    drain()
    assert AccessFailureLog.objects.count() == 50
    with CaptureQueriesContext(connection) as many:
        page = admin_client.get(URL)
    assert page.status_code == 200
    assert len(many) == len(few) <= 20
    assert not [query for query in many if "failurelog" in query["sql"]]


def test_says_when_the_store_is_not_complete(admin_client: Client, valkey: Any) -> None:
    valkey.flushall()
    page = admin_client.get(URL).content.decode()
    assert "not complete" in page
    assert "Needs a person" in page


@pytest.mark.parametrize("span", SPANS)
def test_bars_cover_the_span_up_to_now(span: str) -> None:
    length, step = SPANS[span]
    bars = history(SPANS[span], NOW)
    assert len(bars) == length / step
    assert bars[-1].start <= NOW < bars[-1].start + step


def test_minutes_are_added_to_their_bar() -> None:
    rolled_up(0, failed=1, lockouts=json.dumps({"ip_address": 2}))
    rolled_up(10, failed=2, turned_away=7, lockouts=json.dumps({"ip_address": 1, "username": 1}))
    rolled_up(24 * 60 + 60, failed=100)
    bars = history(SPANS["24h"], NOW)
    assert [(bar.failed, bar.turned_away) for bar in bars[-2:]] == [(2, 7), (1, 0)]
    assert bars[-1].lockouts + bars[-2].lockouts == {"ip_address": 3, "username": 1}
    assert sum(bar.failed for bar in bars) == 3


def test_now_is_compared_with_the_same_hour_a_week_ago() -> None:
    assert now_figures(NOW).week_ago is None
    for minute in range(1, 6):
        rolled_up(minute, failed=4, turned_away=6)
    for minute in range(5):
        rolled_up(7 * 24 * 60 + minute, failed=12)
    found = now_figures(NOW)
    assert (found.per_minute, found.week_ago) == (10, 1)


def test_top_values_of_hours_are_added() -> None:
    for hour, counts in ((12, {"a": 3, "b": 1}), (11, {"b": 4})):
        TopValues.objects.create(
            hour=NOW.replace(hour=hour, minute=0, second=0), kind="name", counts=json.dumps(counts)
        )
    assert top_values(SPANS["24h"], NOW)["name"] == [("b", 5), ("a", 3)]


def test_locked_names_and_addresses_are_counted(admin_client: Client, drain: Drain, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"]
    for number in range(2):
        for _ in range(3):
            failure("mallory", f"203.0.113.{number}")
    drain()
    assert AttemptCounter.objects.locked(timezone.now()).count() == 2
    page = admin_client.get(URL).content.decode()
    assert re.search(r"Locked now</dt>\s*<dd><span>1 <small>names</small></span> <span>1 <small>addresses", page)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="asks PostgreSQL for its plan")
def test_counters_that_are_not_locked_are_not_read(admin_client: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        locked_now(NOW)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for query in queries:
            cursor.execute(f"EXPLAIN {query['sql']}")
            assert "axes_async_near" in str(cursor.fetchall())


@pytest.mark.parametrize("highest", [0, 1, 3, 57, 999, 123_456])
def test_no_bar_leaves_the_chart(highest: int) -> None:
    chart = stacked([(highest, highest // 2), (0, 0)], ["a", "b"], ["a", "b"])
    for bar in chart.bars:
        for part in bar.parts:
            assert chart.top <= part.y <= part.y + part.height <= chart.bottom + 0.2
            assert chart.left <= part.x <= part.x + part.width <= chart.right
    assert len(chart.bars[0].parts) == (0 if not highest else 2 if highest > 1 else 1)
