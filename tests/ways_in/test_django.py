"""Django's own ways in: its login view, the admin, and its functions."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY, authenticate
from django.contrib.auth.models import User
from django.test import Client

from axes_async.models import AccessAttempt, AccessLog
from axes_async.tasks.drain import drain
from axes_async.utils import reset
from tests.actions import failure
from tests.conftest import PASSWORD
from tests.site import CountingBackend
from tests.ways_in.story import back_by, follow

pytestmark = [pytest.mark.django_db]


@back_by
def test_the_login_view(alice: User, back: str) -> None:
    def enter(password: str) -> Any:
        return Client().post("/login/", {"username": "alice", "password": password})

    def logged_in(response: Any) -> None:
        assert SESSION_KEY in response.client.session

    follow(enter, back, right=302, wrong=200, path="/login/", entered=logged_in)


@back_by
def test_the_admin(db: None, back: str) -> None:
    User.objects.create_superuser("alice", password=PASSWORD)

    def enter(password: str) -> Any:
        return Client().post("/admin/login/?next=/admin/", {"username": "alice", "password": password})

    def in_the_admin(response: Any) -> None:
        assert response.client.get(response["Location"]).status_code == 200

    follow(enter, back, right=302, wrong=200, path="/admin/login/", entered=in_the_admin)


def by_name(password: str) -> bool:
    return authenticate(None, username="alice", password=password) is not None


def by_test_client(password: str) -> bool:
    return Client().login(username="alice", password=password)


@pytest.mark.parametrize("enter", [by_name, by_test_client])
def test_without_a_request_names_are_locked(alice: User, settings: Any, enter: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username"]
    assert enter(PASSWORD)
    assert [enter(password) for password in ("wrong", "wrong", "wrong", PASSWORD)] == [False] * 4
    assert CountingBackend.checks == 4
    drain()
    attempt = AccessAttempt.objects.get()
    assert (attempt.username, attempt.ip_address, attempt.failures_since_start) == ("alice", None, 3)
    assert reset(username="alice") == 1
    assert enter(PASSWORD)


@pytest.mark.parametrize("enter", [by_name, by_test_client])
def test_without_a_request_no_address_is_locked(alice: User, enter: Any) -> None:
    """Where only addresses are counted, an attempt that has none is counted nowhere."""
    assert [enter(password) for password in ("wrong", "wrong", "wrong", PASSWORD)] == [False, False, False, True]


def test_force_login_is_no_attempt_and_is_let_in_during_a_lockout(alice: User, client: Client, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"]
    for _ in range(3):
        failure("alice", "127.0.0.1")
    client.force_login(alice)
    assert SESSION_KEY in client.session
    drain()
    assert AccessLog.objects.get().username == "alice"
    assert AccessAttempt.objects.get().failures_since_start == 3
    assert not by_name(PASSWORD)
