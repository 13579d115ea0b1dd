"""A user model of the site's own, with an e-mail address for a name."""

from __future__ import annotations

import re
from typing import Any

import pytest
from celery import current_app
from django.contrib.auth import SESSION_KEY, authenticate
from django.core.management import call_command
from django.test import Client

from axes_async.models import AccessAttempt, AccessLog
from axes_async.tasks.drain import drain
from tests.conftest import PASSWORD
from tests.ways_in.own_user.models import LOCKED, Member
from tests.ways_in.story import back_by, follow

pytestmark = [pytest.mark.django_db]


@pytest.fixture
def member(db: None) -> Member:
    """Return a member."""
    LOCKED.clear()
    return Member.objects.create_user("alice@example.com", PASSWORD)


@back_by
def test_the_login_view(member: Member, back: str) -> None:
    def enter(password: str) -> Any:
        return Client().post("/login/", {"username": "alice@example.com", "password": password})

    def logged_in(response: Any) -> None:
        assert SESSION_KEY in response.client.session

    name = "alice@example.com"
    follow(enter, back, right=302, wrong=200, username=name, path="/login/", logins=[name], entered=logged_in)
    assert LOCKED == ["alice@example.com"]


@pytest.mark.parametrize("field", ["email", "username"])
def test_the_name_is_known_by_its_field_and_as_username(member: Member, field: str) -> None:
    """Django's own form says ``username``, and code that asks the model says ``email``."""
    for _ in range(3):
        assert authenticate(None, **{field: "alice@example.com", "password": "wrong"}) is None
    assert authenticate(None, **{field: "alice@example.com", "password": PASSWORD}) is None
    drain()
    assert member.attempts().get().failures_since_start == 3
    assert member.lift_lockouts() == 1
    assert authenticate(None, **{field: "ALICE@example.com", "password": "wrong"}) is None
    assert authenticate(None, **{field: "alice@example.com", "password": PASSWORD}) == member


def test_a_login_is_kept_under_the_address(member: Member) -> None:
    Client().post("/login/", {"username": "alice@example.com", "password": PASSWORD})
    drain()
    assert AccessLog.objects.get().username == "alice@example.com"
    assert AccessAttempt.objects.count() == 0


def test_a_subclassed_backend_passes_the_checks() -> None:
    call_command("check", "--tag", "axes_async", "--fail-level", "WARNING")


@pytest.mark.django_db(transaction=True)
def test_the_self_test_guesses_at_an_address(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(current_app.conf, "task_always_eager", True)
    call_command("axes_selftest")
    assert re.search(r"guesser +ok +axes-selftest-\w+@example\.invalid from ", capsys.readouterr().out)
