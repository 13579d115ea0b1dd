"""django-allauth: login by username, by e-mail, and by either; and its own limits beside ours."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.test import Client

from axes_async.models import AccessAttempt
from axes_async.tasks.drain import drain
from tests.conftest import PASSWORD
from tests.site import CountingBackend
from tests.ways_in.story import follow

pytestmark = [pytest.mark.django_db]


@pytest.fixture
def alice(db: None) -> User:
    """Return a user with an e-mail address."""
    return User.objects.create_user("alice", "alice@example.com", PASSWORD)


@pytest.mark.parametrize(
    ("methods", "name"),
    [
        ({"username"}, "alice"),
        ({"email"}, "alice@example.com"),
        ({"username", "email"}, "alice"),
        ({"username", "email"}, "alice@example.com"),
    ],
)
@pytest.mark.parametrize(("rules", "back"), [(["ip_address"], "reset"), (["username"], "cool-off")])
def test_the_login_page(alice: User, settings: Any, methods: set[str], name: str, rules: list[str], back: str) -> None:
    settings.ACCOUNT_LOGIN_METHODS = methods
    settings.AXES_LOCKOUT_PARAMETERS = rules

    def enter(password: str) -> Any:
        return Client().post("/accounts/login/", {"login": name, "password": password})

    def logged_in(response: Any) -> None:
        assert SESSION_KEY in response.client.session

    follow(enter, back, right=302, wrong=200, username=name, path="/accounts/login/", entered=logged_in)


def guesses(number: int) -> list[int]:
    form = {"login": "alice", "password": "wrong"}
    return [Client().post("/accounts/login/", form).status_code for _ in range(number)]


def test_with_the_login_failed_limit_of_allauth_off_ours_is_the_one_that_holds(alice: User, settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 8
    assert guesses(9) == [200] * 7 + [429] * 2
    assert CountingBackend.checks == 8


def test_with_the_login_failed_limit_of_allauth_on_the_lower_one_holds(alice: User, settings: Any) -> None:
    """Its default lets five guesses at one name through in five minutes, and the others never get to us."""
    settings.ACCOUNT_RATE_LIMITS = {}
    settings.AXES_FAILURE_LIMIT = 8
    assert guesses(9) == [200] * 9
    assert CountingBackend.checks == 5
    drain()
    assert AccessAttempt.objects.get().failures_since_start == 5
