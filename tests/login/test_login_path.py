"""What a login costs: no SQL of ours, and two round trips to the store, counted where they are written to the wire."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis.connection
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from axes_async.delivery import publisher as outbox
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return what is written to the database of the server that the store is on, one entry for each command."""
    entries: list[bytes] = []
    send = redis.connection.AbstractConnection.send_packed_command

    def noted(self: Any, command: Any, *args: Any, **kwargs: Any) -> None:
        if self.db == 0:
            entries.append(b"".join(command))
        send(self, command, *args, **kwargs)

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", noted)
    return entries


@contextmanager
def round_trips(written: list[bytes], expected: int) -> Iterator[None]:
    """Expect so many writes in the block."""
    written.clear()
    yield
    assert len(written) == expected, written


@pytest.fixture
def warm(alice: User, post: Callable[..., Any]) -> None:
    """Have connections open and scripts loaded, as every process but the newest has."""
    for password in ("wrong", PASSWORD):
        post(password=password, REMOTE_ADDR="192.0.2.99")
    for _ in range(4):
        post(REMOTE_ADDR="192.0.2.98")


def test_a_failed_login_takes_two_round_trips(warm: None, post: Callable[..., Any], written: list[bytes]) -> None:
    with round_trips(written, 2):
        assert post().status_code == 401


def test_a_successful_login_takes_two_round_trips(warm: None, post: Callable[..., Any], written: list[bytes]) -> None:
    with round_trips(written, 2):
        assert post(password=PASSWORD).status_code == 204


def test_a_denied_login_takes_one_round_trip(warm: None, post: Callable[..., Any], written: list[bytes]) -> None:
    for _ in range(3):
        post()
    with round_trips(written, 1):
        assert post(password=PASSWORD).status_code == 429


@override_settings(AXES_IP_BLACKLIST=["192.0.2.0/24"])
def test_a_refused_login_takes_one_round_trip_to_be_recorded_and_else_none(
    warm: None, post: Callable[..., Any], written: list[bytes]
) -> None:
    post(REMOTE_ADDR="192.0.2.76")
    for expected in (*[1] * 10, 0, 0):
        with round_trips(written, expected):
            assert post(password=PASSWORD, REMOTE_ADDR="192.0.2.77").status_code == 429


@override_settings(AXES_NEVER_LOCKOUT_WHITELIST=True, AXES_IP_WHITELIST=["192.0.2.76"])
def test_an_exempt_failure_takes_none(warm: None, post: Callable[..., Any], written: list[bytes]) -> None:
    with round_trips(written, 0):
        assert post(REMOTE_ADDR="192.0.2.76").status_code == 401


def test_a_page_that_tries_no_password_takes_none(warm: None, client: Client, written: list[bytes]) -> None:
    with round_trips(written, 0):
        client.get("/home/")


@override_settings(AXES_LOCKOUT_PARAMETERS=["ip_address", "username", ["username", "ip_address"]])
def test_more_rules_take_no_more_round_trips(warm: None, post: Callable[..., Any], written: list[bytes]) -> None:
    post()
    with round_trips(written, 2):
        assert post().status_code == 401


def queries(enabled: bool, run: Callable[[], Any]) -> list[str]:
    """Return the statements that ``run`` sends, without their values, with the package on or off."""
    with override_settings(AXES_ENABLED=enabled), CaptureQueriesContext(connection) as captured:
        run()
    return [re.sub(r"'[^']*'|\d+", "?", query["sql"]) for query in captured]


@pytest.mark.parametrize(("password", "url"), [("wrong", "/login/"), (PASSWORD, "/login/"), (PASSWORD, "/sign-in/")])
def test_a_login_sends_the_same_sql_with_the_package_as_without(warm: None, password: str, url: str) -> None:
    def enter() -> None:
        Client().post(url, {"username": "alice", "password": password})

    with_us, without = queries(True, enter), queries(False, enter)
    assert with_us == without
    assert with_us, "a login looks its user up"


def test_a_login_and_logout_in_one_session_sends_the_same_sql(warm: None) -> None:
    def come_and_go() -> None:
        client = Client()
        client.post("/login/", {"username": "alice", "password": PASSWORD})
        client.post("/logout/")

    assert queries(True, come_and_go) == queries(False, come_and_go)


def test_a_denied_login_sends_no_sql_at_all(warm: None, post: Callable[..., Any], client: Client) -> None:
    for _ in range(3):
        post()
    assert queries(True, lambda: post(password=PASSWORD)) == []


def test_one_nudge_is_published_for_many_events_until_a_drain_has_come(
    warm: None, post: Callable[..., Any], drain: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[str] = []
    monkeypatch.setattr(outbox, "publish", lambda name, *args, **kwargs: published.append(name) or True)
    drain()
    for _ in range(2):
        post()
    assert published == ["axes_async.drain"]
    drain()
    post()
    assert published == ["axes_async.drain"] * 2
