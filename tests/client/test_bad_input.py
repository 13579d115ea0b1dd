"""What strangers send: no error, no attempt that is not counted, no counter shared with others, a row to read."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import redis
import time_machine
from django.contrib import admin
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.contrib.auth.views import LoginView
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axes_async.client.identity import identify
from axes_async.counters.events import worth_a_row
from axes_async.counters.rules import Rule, counters_for
from axes_async.decorators import axes_dispatch
from axes_async.login.responses import lockout_response
from axes_async.login.state import AxesState
from axes_async.models import AccessAttempt, AccessFailureLog
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from axes_async.tasks.reset import reset
from tests.actions import kept_keys
from tests.conftest import PASSWORD
from tests.site import CountingBackend, sign_in

Drain = Callable[[], int]
A, B = "203.0.113.7", "198.51.100.8"
MEGABYTE = "x" * 1_000_000
NAMES: dict[str, Any] = {
    "number": 7, "float": 0.5, "true": True, "list": ["alice"], "object": {"name": "alice"}, "megabyte": MEGABYTE,
    "NUL": "ali\x00ce", "only NUL": "\x00", "surrogate": "ali\ud800ce", "right to left": "\u202eecila\u200f",
    "address": A, "bar": "a|b", "colon": "a:1:b", "braces": "{axes}", "wide": "\uff21\uff2c\uff29\uff23\uff25\uff12",
    "line end": "al\r\nice", "quote": "'; DROP TABLE x; --", "percent": "%s%(x)s", "emoji": "\U0001f600" * 255,
    "256 characters": "y" * 256, "escape": "\x1b[2J",
}  # fmt: skip
NOBODY: dict[str, Any] = {"empty": "", "none": None, "space": " \t\u3000"}
PASSWORDS: dict[str, Any] = {
    "empty": "", "none": None, "number": 7, "true": True, "list": ["x"], "object": {}, "NUL": "a\x00",
    "surrogate": "\ud800", "megabyte": MEGABYTE,
}  # fmt: skip
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=300),
                    lambda children: st.lists(children, max_size=2) | st.dictionaries(st.text(), children, max_size=2),
                    max_leaves=3)  # fmt: skip
IN_VIEWS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def json_sign_in(request: HttpRequest) -> HttpResponse:
    """Try whatever the JSON holds."""
    data = json.loads(request.body)
    user = authenticate(request, username=data.get("username"), password=data.get("password"))
    return HttpResponse(status=401 if user is None else 204)


@axes_dispatch
def dispatched(request: HttpRequest) -> HttpResponse:
    """Answer without a look at what was sent."""
    return HttpResponse("seen", status=401)


urlpatterns = [
    path("dispatched/", dispatched),
    path("json/", json_sign_in),
    path("sign-in/", sign_in),
    path("login/", LoginView.as_view(template_name="admin/login.html")),
    path("admin/", admin.site.urls),
]


@pytest.fixture(autouse=True)
def _urls(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.client.test_bad_input"


@pytest.fixture
def tries(client: Client) -> Callable[..., int]:
    """Return a function that tries a name of any type, from any address, and returns the status."""

    def tries(username: Any, address: str = A, password: Any = "wrong", **extra: Any) -> int:
        body = json.dumps({"username": username, "password": password})
        headers: Any = {"REMOTE_ADDR": address, **extra}
        return client.post("/json/", body, content_type="application/json", **headers).status_code

    return tries


Tries = Callable[..., int]


def by_name(table: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("value", table.values(), ids=table.keys())


def rows_can_be_read(valkey: redis.Redis, failures: int) -> None:
    """Check that every failure has become a row that the ways to look can show."""
    assert [key for key in kept_keys(valkey) if key.endswith(":dead")] == []
    assert AccessFailureLog.objects.count() == failures
    for row in [*AccessFailureLog.objects.all(), *AccessAttempt.objects.all()]:
        assert str(row).encode()
    out = StringIO()
    call_command("axes_list_attempts", stdout=out)
    assert len(out.getvalue().splitlines()) == AccessAttempt.objects.count() > 0


@by_name({**NAMES, **NOBODY})
def test_a_try_with_any_name_counts_for_its_address(
    tries: Tries, drain: Drain, valkey: redis.Redis, value: Any
) -> None:
    assert [tries(value) for _ in range(4)] == [401, 401, 429, 429]
    assert tries(value, B) == 401
    drain()
    rows_can_be_read(valkey, 5)


@override_settings(AXES_LOCKOUT_PARAMETERS=["username", ["ip_address", "username"]])
def test_each_odd_name_locks_itself_and_nobody_else(
    alice: User, tries: Tries, drain: Drain, valkey: redis.Redis
) -> None:
    statuses = {name: [tries(value, f"192.0.2.{number}") for number in range(4)] for name, value in NAMES.items()}
    assert statuses == {name: [401, 401, 429, 429] for name in NAMES}
    assert tries("alice", "192.0.2.1", PASSWORD) == 204
    drain()
    rows_can_be_read(valkey, 4 * len(statuses))


@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
@by_name(NOBODY)
def test_a_name_that_is_none_never_locks_anybody(tries: Tries, value: Any) -> None:
    assert [tries(value) for _ in range(5)] == [401] * 5


@override_settings(AXES_LOCKOUT_PARAMETERS=["username", "ip_address"])
def test_tries_at_a_name_that_is_an_address_do_not_lock_that_address(alice: User, tries: Tries) -> None:
    assert [tries(A, B) for _ in range(4)] == [401, 401, 429, 429]
    assert tries("alice", A, PASSWORD) == 204


@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
def test_variants_of_one_name_get_one_limit_together(tries: Tries) -> None:
    variants = ["alice", " ALICE ", "\uff41\uff4c\uff49\uff43\uff45", "Alice\u3000"]
    assert [tries(variant, f"192.0.2.{number}") for number, variant in enumerate(variants)] == [401, 401, 429, 429]
    assert CountingBackend.checks == 3


@override_settings(AXES_LOCKOUT_PARAMETERS=["username", "ip_address"])
@by_name(PASSWORDS)
def test_an_odd_password_is_a_wrong_one(alice: User, tries: Tries, value: Any) -> None:
    assert [tries("alice", password=value) for _ in range(4)] == [401, 401, 429, 429]
    assert tries("nobody", B, password=value) == 401


@pytest.mark.parametrize("url", ["/sign-in/", "/login/"])
@pytest.mark.parametrize("encoded", ["%00", "%ff%fe", "%ed%a0%80", "%E2%80%AEalice", "a" * 1_000_000, "a%7Cb", ""])
def test_a_form_with_an_odd_name_is_answered(client: Client, url: str, encoded: str) -> None:
    body = f"username={encoded}&password=wrong"
    answers = [client.post(url, body, content_type="application/x-www-form-urlencoded") for _ in range(4)]
    assert {answer.status_code for answer in answers} <= {200, 401, 429}


@pytest.mark.parametrize(
    ("address", "shown"),
    [(A, A), (f"{A}:55555", A), (f"::ffff:{A}", A), ("fe80::1%eth0", "fe80::1"), ("[2001:db8::1]:80", "2001:db8::1"),
     ("unknown", None), ("x" * 100_000, None), ("1.2.3.4, 5.6.7.8", None), ("\x00\ud800", None)],
    ids=lambda value: f"{value!r:.20}",
)  # fmt: skip
def test_any_address_is_counted_shares_with_no_other_and_can_be_read(
    tries: Tries, drain: Drain, valkey: redis.Redis, address: str, shown: str | None
) -> None:
    assert [tries("alice", address) for _ in range(4)] == [401, 401, 429, 429]
    assert [tries("bob", other) for other in (B, "2001:db8:9::1", "nonsense")] == [401] * 3
    drain()
    rows_can_be_read(valkey, 7)
    assert AccessAttempt.objects.filter(ip_address=shown, failures_since_start=3).count() == 1


def test_a_site_whose_requests_have_no_address_is_told_so_once(tries: Tries, caplog: pytest.LogCaptureFixture) -> None:
    assert [tries("alice", address) for address in ("192.0.2.1", "", "")] == [401] * 3
    assert len([text for text in caplog.messages if "a request without an address" in text]) == 1


@override_settings(AXES_LOCKOUT_PARAMETERS=["ip_address", "username"])
def test_clients_without_an_address_share_nothing_but_a_name(tries: Tries) -> None:
    assert [tries(f"user {number}", "") for number in range(5)] == [401] * 5
    assert [tries("alice", "") for _ in range(4)] == [401, 401, 429, 429]


def test_ports_zones_and_mapped_forms_of_one_address_get_one_limit_together(tries: Tries) -> None:
    assert [tries("alice", address) for address in (A, f"{A}:1", f"::ffff:{A}", f" {A}:2")] == [401, 401, 429, 429]


@pytest.mark.parametrize("address", ["unknown", ""])
@override_settings(AXES_LOCKOUT_PARAMETERS=["ip_address", "username"])
def test_a_lockout_without_a_real_address_goes_with_its_row(
    alice: User, tries: Tries, drain: Drain, address: str
) -> None:
    for _ in range(3):
        tries("alice", address)
    drain()
    assert reset(rows=[AccessAttempt.objects.get().key]) == 1
    assert tries("alice", address, PASSWORD) == 204


@override_settings(AXES_LOCKOUT_PARAMETERS=[["ip_address", "user_agent"]])
@pytest.mark.parametrize("agent", ["a" * 65_536, "M\u00f6zill\u00e4/\xff", "\u4e2d" * 300, "", "\x00", "a|b"])
def test_any_agent_is_counted_whole_and_can_be_read(
    tries: Tries, drain: Drain, valkey: redis.Redis, agent: str
) -> None:
    assert [tries("alice", HTTP_USER_AGENT=agent) for _ in range(4)] == [401, 401, 429, 429]
    assert tries("alice", HTTP_USER_AGENT=agent + "b") == 401
    drain()
    rows_can_be_read(valkey, 5)
    assert AccessAttempt.objects.count() == 2


@pytest.mark.parametrize("path", ["/json/?" + "x" * 65_536, "/\u00e9%00/", "/" + "y" * 5000])
def test_any_path_and_accept_header_is_answered(client: Client, tries: Tries, path: str) -> None:
    for _ in range(3):
        tries("alice", HTTP_ACCEPT="text/html;q=" + "9" * 65_536)
    body = json.dumps({"username": "alice"})
    assert client.post(path, body, content_type="application/json", REMOTE_ADDR=A).status_code in {404, 429}


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_accept_header_breaks_the_answer(accept: str) -> None:
    request = RequestFactory().get("/", HTTP_ACCEPT=accept)
    assert lockout_response(request, AxesState(locked_out=True, locked_until=-1)).status_code == 429


@IN_VIEWS
@given(
    name=JSON,
    password=st.none() | st.text(st.characters()),
    agent=st.text(st.characters(max_codepoint=255), max_size=300),
)
def test_whatever_is_sent_is_counted_and_becomes_a_row(
    tries: Tries, drain: Drain, valkey: redis.Redis, name: Any, password: Any, agent: str
) -> None:
    reset()
    before = AccessFailureLog.objects.count()
    assert [tries(name, A, password, HTTP_USER_AGENT=agent) for _ in range(3)] == [401, 401, 429]
    drain()
    rows_can_be_read(valkey, before + 3)


@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
@pytest.mark.parametrize("with_request", [True, False])
@by_name({**NAMES, "bytes": b"alice"})
def test_authenticate_takes_any_name_with_and_without_a_request(
    rf: RequestFactory, value: Any, with_request: bool
) -> None:
    for _ in range(5):
        assert authenticate(rf.post("/") if with_request else None, username=value, password="wrong") is None
    assert CountingBackend.checks <= 3


@override_settings(AXES_LOCKOUT_PARAMETERS=["username"])
def test_without_a_request_a_locked_name_is_denied_and_others_are_not(alice: User) -> None:
    for _ in range(3):
        assert authenticate(None, username="mallory", password="wrong") is None
    assert authenticate(None, username="alice", password=PASSWORD) == alice
    assert authenticate(None, username="mallory", password="wrong") is None
    assert authenticate(None, username="alice", password=PASSWORD) == alice
    assert CountingBackend.checks == 5


@pytest.mark.parametrize("rule", ["username", "ip_address"])
def test_without_a_request_a_failure_has_its_own_time_not_that_of_an_earlier_login(
    alice: User, drain: Drain, settings: Any, rule: str
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = [rule]
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)

    def story() -> None:
        with time_machine.travel(noon, tick=False) as clock:
            assert authenticate(None, username="alice", password=PASSWORD) == alice
            clock.shift(timedelta(hours=1))
            user_login_failed.send(sender=__name__, credentials={"username": "alice"}, request=None)

    copy_context().run(story)
    drain()
    assert AccessFailureLog.objects.get().attempt_time == noon + timedelta(hours=1)


@override_settings(AXES_RESERVE_WAIT=0)
def test_a_try_without_a_name_that_is_turned_away_as_busy_counts_as_nothing(
    rf: RequestFactory, redis_store: RedisStore
) -> None:
    request = rf.post("/", {"username": "alice"})
    counters = counters_for(
        [Rule(parameters=("ip_address",), limit=3, cooloff=None)], identify(request, None).canonical
    )
    for place in range(3):
        redis_store.do(Step(StepKind.RESERVE, f"{place:016}", counters, lease=30_000))
    assert authenticate(request, username=None, password="wrong") is None
    assert CountingBackend.checks == 0
    assert redis_store.states(counters)[0].failures == 0


@override_settings(
    AXES_COOLOFF_TIME=timedelta(minutes=1),
    AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT=True,
)
def test_a_flood_that_prolongs_its_lockout_has_as_few_rows_as_any(tries: Tries, drain: Drain) -> None:
    with time_machine.travel(datetime(2030, 1, 1, tzinfo=UTC), tick=False) as clock:
        for _ in range(103):
            tries("alice")
            clock.shift(1)
        drain()
    assert AccessFailureLog.objects.count() == 3 + sum(map(worth_a_row, range(1, 101)))


@pytest.mark.parametrize("charset", ["base64", "rot13", "zlib", "idna", "utf-16", "undefined"])
def test_a_form_in_a_charset_that_is_none_of_texts_is_for_the_view_to_answer(client: Client, charset: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nalice\r\n--x--\r\n'
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    assert client.generic("POST", "/dispatched/", body, content_type=kind).status_code == 401
