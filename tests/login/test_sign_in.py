"""Logging in, failing and being locked out, through Django's own views and signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
from tests.conftest import PASSWORD
from tests.site import CountingBackend

Post = Callable[..., Any]

pytestmark = [pytest.mark.django_db]


def test_failures_below_the_limit_show_the_form_again(alice: User, post: Post) -> None:
    assert [post().status_code for _ in range(2)] == [401, 401]
    assert post(password=PASSWORD).status_code == 204


def test_the_failure_that_reaches_the_limit_is_answered_as_a_lockout(alice: User, post: Post) -> None:
    assert [post().status_code for _ in range(3)] == [401, 401, 429]


def test_a_locked_address_is_denied_before_the_password_is_checked(alice: User, post: Post) -> None:
    for _ in range(3):
        post()
    assert post(password=PASSWORD).status_code == 429
    assert CountingBackend.checks == 3
    assert post("somebody else", PASSWORD).status_code == 429


def test_another_address_is_not_locked(alice: User, post: Post) -> None:
    for _ in range(3):
        post()
    assert post(password=PASSWORD, REMOTE_ADDR="203.0.113.7").status_code == 204


def test_logged_in(alice, post, drain):
    assert post(password=PASSWORD).status_code == 204
    for _ in range(4):
        post(password="bad")
    assert drain() == 5
    assert AccessLog.objects.get().username == "alice"
    assert AccessAttempt.objects.get().failures_since_start == 3
    assert AccessFailureLog.objects.count() == 4
