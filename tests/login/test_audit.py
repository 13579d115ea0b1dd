"""What the log says of attempts: in OWASP's words, once each, and safe to print."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings

from axes_async.models import AccessFailureLog, AccessLog
from axes_async.text import printable
from tests.conftest import PASSWORD

Post = Callable[..., Any]
NO_STORE = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}
TRICKS = ["a\r\nb", "a\x1b[2Jb", "\u202egnp.exe", "a\u2028b", "\u2066x\u2069", "a\u200bb", "a\x00b", "a\x85b"]
"""Names that would break a line of a log, or show as something else."""

pytestmark = [pytest.mark.django_db]


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """Return the records of what happened to attempts."""
    told: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    log = logging.getLogger("axes_async.audit")
    log.addHandler(handler)
    with caplog.at_level(logging.INFO, log.name):
        yield told
    log.removeHandler(handler)


def events(told: list[Any]) -> list[tuple[str, str]]:
    return [(record.levelname, record.event) for record in told]


def test_failures_a_lockout_and_what_it_turns_away_have_owasps_names(post: Post, told: list[Any]) -> None:
    for _ in range(4):
        post()
    assert events(told) == [
        ("WARNING", "authn_login_fail:alice"),
        ("WARNING", "authn_login_fail:alice"),
        ("WARNING", "authn_login_fail:alice"),
        ("WARNING", "authn_login_lock:alice,maxretries"),
        ("WARNING", "authn_login_fail_max:alice,3"),
    ]


def test_logins_and_logouts_have_owasps_names(alice: User, post: Post, client: Client, told: list[Any]) -> None:
    post(password=PASSWORD)
    client.post("/logout/")
    assert events(told) == [("INFO", "authn_login_success:alice"), ("INFO", "session_expired:alice,logout")]


@pytest.mark.parametrize(
    ("rules", "retries"), [(["ip_address"], 2), (["username", "ip_address"], 1), ([["username", "ip_address"]], 1)]
)
def test_a_login_after_failures_tells_how_many_the_name_had(
    alice: User, post: Post, told: list[Any], rules: list[Any], retries: int
) -> None:
    with override_settings(AXES_LOCKOUT_PARAMETERS=rules):
        post()
        post("bob")
        post(password=PASSWORD)
    assert events(told)[-1] == ("INFO", f"authn_login_successafterfail:alice,{retries}")
    assert told[-1].retries == retries


@override_settings(AXES_RESET_ON_SUCCESS=True)
def test_failures_that_a_login_has_cleared_are_told_once(alice: User, post: Post, told: list[Any]) -> None:
    post()
    for _ in range(2):
        post(password=PASSWORD)
    assert [event for _, event in events(told)[1:]] == [
        "authn_login_successafterfail:alice,1",
        "authn_login_success:alice",
    ]


@override_settings(AXES_ON_STORE_FAILURE="database", CACHES=NO_STORE)
def test_without_a_store_the_same_is_told(alice: User, post: Post, told: list[Any]) -> None:
    post()
    post(password=PASSWORD)
    for _ in range(3):
        post()
    assert [event.partition(":")[0] for _, event in events(told)] == [
        "authn_login_fail",
        "authn_login_successafterfail",
        "authn_login_fail",
        "authn_login_fail",
        "authn_login_lock",
        "authn_login_fail_max",
    ]


@pytest.mark.parametrize("kept", [True, False])
def test_a_flood_on_a_locked_client_does_not_flood_the_log(post: Post, told: list[Any], kept: bool) -> None:
    with override_settings(AXES_ENABLE_ACCESS_FAILURE_LOG=kept):
        for _ in range(3 + 45):
            post()
    assert [record.repeats for record in told[4:]] == [*range(1, 11), 20, 40]


@override_settings(AXES_DISABLE_ACCESS_LOG=True, AXES_ENABLE_ACCESS_FAILURE_LOG=False)
def test_the_log_tells_what_no_row_does(alice: User, post: Post, client: Client, told: list[Any]) -> None:
    post()
    post(password=PASSWORD)
    client.post("/logout/")
    assert [event.partition(":")[0] for _, event in events(told)] == [
        "authn_login_fail",
        "authn_login_successafterfail",
        "session_expired",
    ]


def test_a_record_has_the_client_in_fields_and_the_id_of_its_row(
    alice: User, post: Post, told: list[Any], drain: Callable[[], int]
) -> None:
    post(REMOTE_ADDR="203.0.113.7", HTTP_USER_AGENT="curl/8")
    post(password=PASSWORD)
    drain()
    failed, entered = told
    assert failed.getMessage() == (
        'Login failed: {ip_address: "203.0.113.7", username: "alice", user_agent: "curl/8", path_info: "/sign-in/"}.'
    )
    assert (failed.username, failed.ip_address, failed.user_agent) == ("alice", "203.0.113.7", "curl/8")
    assert failed.path_info == "/sign-in/"
    assert failed.event_id == AccessFailureLog.objects.get().event_id.hex
    assert entered.event_id == AccessLog.objects.get().event_id.hex


def test_an_attempt_without_a_name_has_an_event_without_one(post: Post, client: Client, told: list[Any]) -> None:
    client.post("/check-only/")
    assert events(told) == [("WARNING", "authn_login_fail")]


@pytest.mark.parametrize("trick", TRICKS)
def test_no_name_breaks_or_disguises_a_line(client: Client, told: list[Any], trick: str) -> None:
    for _ in range(4):
        client.post(f"/sign-in/?{trick}", {"username": trick, "password": "wrong"}, HTTP_USER_AGENT=trick)
    assert len(told) == 5
    for record in told:
        fields = [record.event, record.username, record.user_agent, record.path_info, record.getMessage()]
        assert all(field.isprintable() for field in fields)
    assert len({printable(trick) for trick in TRICKS}) == len(TRICKS)


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("then", ["deny", "allow"])
def test_the_event_that_no_store_takes_is_one_printable_line_of_json(
    client: Client, caplog: pytest.LogCaptureFixture, trick: str, then: str
) -> None:
    with override_settings(CACHES=NO_STORE, AXES_ON_STORE_FAILURE=then, AXES_ENABLE_ACCESS_FAILURE_LOG=True):
        client.post("/sign-in/", {"username": trick, "password": "wrong"})
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("axes_async")]
    assert lines
    assert all(line.isprintable() for line in lines)


def test_an_event_in_a_log_can_be_read_again() -> None:
    from axes_async.counters.events import AttemptEvent, Kind, new_id

    event = AttemptEvent(kind=Kind.FAILED, id=new_id(1), username="\u202eälice\U0001f600")
    assert event.line().isascii()
    assert json.loads(event.line()) == json.loads(event.body())


def test_a_password_is_in_no_record(alice: User, post: Post, told: list[Any]) -> None:
    for password in ("hunter2", "hunter2", PASSWORD, "hunter2", "hunter2"):
        post(password=password)
    assert told
    assert all(secret not in repr(vars(record)) for record in told for secret in ("hunter2", PASSWORD))


@override_settings(AXES_ENABLED=False)
def test_switched_off_the_log_is_silent(alice: User, post: Post, client: Client, told: list[Any]) -> None:
    for _ in range(4):
        post()
    post(password=PASSWORD)
    client.post("/logout/")
    assert told == []


def test_a_level_that_nobody_wants_costs_no_record(alice: User, post: Post, told: list[Any]) -> None:
    logging.getLogger("axes_async.audit").setLevel(logging.ERROR)
    for password in ("wrong", PASSWORD):
        post(password=password)
    assert told == []
