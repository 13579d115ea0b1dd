"""What a client that was turned away is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings

from axes_async.client.identity import identify
from axes_async.clock import now_ms
from axes_async.counters.rules import Rule, counters_for
from axes_async.login.responses import iso_duration, lockout_response
from axes_async.login.state import AxesState
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import PERMANENT
from axes_async.stores.step import Step, StepKind
from tests.conftest import PASSWORD

Post = Callable[..., Any]
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
ON_A_CLOSED_PORT = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
}

pytestmark = [pytest.mark.django_db]


def locked_out(post: Post, **extra: Any) -> Any:
    for _ in range(3):
        post(**extra)
    return post(**extra)


def hold_reservations(store: RedisStore, number: int = 3) -> None:
    """Make reservations of the test client's address, as attempts do whose passwords are still being looked at."""
    client = identify(RequestFactory().get("/"), None)
    counters = counters_for([Rule(parameters=("ip_address",), limit=3, cooloff=None)], client.canonical)
    for token in range(number):
        store.do(Step(StepKind.RESERVE, f"{token:016}", counters, lease=30_000))


def test_a_lockout_is_answered_with_429_and_is_never_cached(post: Post) -> None:
    response = locked_out(post)
    assert response.status_code == 429
    assert response["Cache-Control"] == "no-store"
    assert "Too many failed login attempts" in response.content.decode()


@override_settings(AXES_HTTP_RESPONSE_CODE=403)
def test_the_status_of_a_lockout_can_be_chosen(post: Post) -> None:
    assert [post().status_code for _ in range(4)] == [401, 401, 403, 403]


@pytest.mark.parametrize(
    ("headers", "content_type"),
    [
        ({}, "text/plain; charset=utf-8"),
        ({"HTTP_ACCEPT": "*/*"}, "text/plain; charset=utf-8"),
        ({"HTTP_ACCEPT": BROWSER}, "text/html; charset=utf-8"),
        ({"HTTP_ACCEPT": "text/html;q=0.5, text/plain"}, "text/plain; charset=utf-8"),
        ({"HTTP_ACCEPT": "text/plain"}, "text/plain; charset=utf-8"),
        ({"HTTP_ACCEPT": "image/png"}, "text/plain; charset=utf-8"),
        ({"HTTP_ACCEPT": ""}, "text/plain; charset=utf-8"),
        ({"HTTP_ACCEPT": ";;,/;q=x"}, "text/plain; charset=utf-8"),
        ({"HTTP_ACCEPT": "application/json"}, "application/json"),
        ({"HTTP_ACCEPT": "application/json, text/plain, */*"}, "application/json"),
        ({"HTTP_ACCEPT": "application/json;q=0.5, text/html"}, "text/html; charset=utf-8"),
        ({"HTTP_ACCEPT": "application/vnd.api+json"}, "application/json"),
        ({"HTTP_ACCEPT": "application/problem+json, */*;q=0.1"}, "application/json"),
        ({"HTTP_ACCEPT": "text/html, application/ld+json;q=0.9"}, "text/html; charset=utf-8"),
        ({"HTTP_ACCEPT": "+json, /+json, ;+json"}, "text/plain; charset=utf-8"),
    ],
)
def test_the_answer_is_text_or_the_page_or_json_that_was_asked_for(
    post: Post, headers: dict[str, str], content_type: str
) -> None:
    assert locked_out(post, **headers)["Content-Type"] == content_type


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [({}, "application/json"), ({"HTTP_ACCEPT": "*/*"}, "application/json"), ({"HTTP_ACCEPT": BROWSER}, "text/html")],
)
def test_whoever_sends_json_and_takes_anything_gets_json(
    client: Client, post: Post, accept: dict[str, str], content_type: str
) -> None:
    locked_out(post)
    response = client.post("/sign-in/", {"username": "alice"}, content_type="application/json", **accept)  # type: ignore[arg-type]
    assert response["Content-Type"].startswith(content_type)


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=5))
def test_json_says_who_was_locked_out_at_which_limit_and_for_how_long(post: Post) -> None:
    with time_machine.travel(NOON, tick=False):
        body = locked_out(post, HTTP_ACCEPT="application/json").json()
    message = "Too many failed login attempts. Please try again later."
    assert body == {
        "detail": message,
        "message": message,
        "failure_limit": 3,
        "username": "alice",
        "retry_after": 300,
        "cooloff_time": "PT5M",
        "cooloff_timedelta": "P0DT00H05M00S",
    }


@override_settings(AXES_COOLOFF_TIME=timedelta(seconds=90))
def test_retry_after_holds_the_seconds_that_remain(post: Post) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        waits = [locked_out(post)["Retry-After"]]
        for step in (30, 59, 0.5):
            clock.shift(step)
            waits.append(post()["Retry-After"])
        assert waits == ["90", "60", "1", "1"]
        clock.shift(0.5)
        assert post().status_code == 401


def test_a_lockout_that_only_a_reset_ends_names_no_time(post: Post) -> None:
    response = locked_out(post)
    assert not response.has_header("Retry-After")
    assert "until an administrator lifts it" in response.content.decode()
    body = post(HTTP_ACCEPT="application/json").json()
    assert (body["retry_after"], "cooloff_time" in body) == (None, False)


@override_settings(AXES_RESERVE_WAIT=0, AXES_HTTP_RESPONSE_CODE=403)
def test_a_busy_client_is_told_to_come_back_in_a_second(post: Post, redis_store: RedisStore) -> None:
    hold_reservations(redis_store)
    response = post(password=PASSWORD)
    assert (response.status_code, response["Retry-After"]) == (429, "1")
    assert response["Cache-Control"] == "no-store"
    assert "at once" in response.content.decode()


@override_settings(AXES_RESERVE_WAIT=0)
def test_being_turned_away_as_busy_counts_as_nothing(
    post: Post, redis_store: RedisStore, drain: Callable[[], int]
) -> None:
    hold_reservations(redis_store)
    assert post().status_code == 429
    assert drain() == 0


@override_settings(CACHES=ON_A_CLOSED_PORT, AXES_HTTP_RESPONSE_CODE=403, AXES_ON_STORE_FAILURE="deny")
def test_without_a_store_nobody_is_let_in_and_503_says_when_to_come_back(post: Post) -> None:
    response = post(password=PASSWORD)
    assert (response.status_code, response["Retry-After"], response["Cache-Control"]) == (503, "1", "no-store")
    assert "not possible at the moment" in response.content.decode()


@pytest.mark.parametrize(
    ("until", "expected"), [(PERMANENT, None), (0, "1"), (1, "1"), (999, "1"), (1000, "1"), (1001, "2")]
)
def test_a_part_of_a_second_is_a_whole_one_and_a_wait_never_none(
    rf: RequestFactory, until: int, expected: str | None
) -> None:
    with time_machine.travel(NOON, tick=False):
        state = AxesState(locked_out=True, locked_until=until if until == PERMANENT else now_ms() + until)
        assert lockout_response(rf.get("/"), state).headers.get("Retry-After") == expected


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(minutes=15), "PT15M"),
        (timedelta(hours=26), "P1DT2H"),
        (timedelta(days=7), "P7D"),
        (timedelta(days=1, hours=1, minutes=1, seconds=1), "P1DT1H1M1S"),
        (timedelta(milliseconds=1), "PT1S"),
    ],
)
def test_a_cool_off_is_told_as_iso_8601_writes_it(length: timedelta, text: str) -> None:
    assert iso_duration(length) == text


@pytest.mark.parametrize(
    ("kind", "told_in_json"),
    [
        ("application/json", True),
        ("application/JSON; charset=utf-8", True),
        ("application/problem+json", True),
        ("text/html; charset=utf-8", False),
        ("", False),
    ],
)
def test_a_lockout_is_told_in_json_where_the_view_answers_in_json(
    rf: RequestFactory, kind: str, told_in_json: bool
) -> None:
    view = HttpResponse(status=401)
    view.headers["Content-Type"] = kind
    state = AxesState(locked_out=True, locked_until=-1)
    answer = lockout_response(rf.post("/"), state, view)
    assert (answer["Content-Type"] == "application/json") is told_in_json
    assert (answer.status_code, b"Too many" in answer.content) == (429, True)


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
