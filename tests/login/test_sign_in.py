"""Logging in, failing and being locked out, through Django's own views and signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.test import Client

from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
from axes_async.stores.redis.store import RedisStore
from tests.actions import kept_keys
from tests.conftest import PASSWORD
from tests.site import CountingBackend

Drain = Callable[[], int]
GUESS = "hunter2-and-more"

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


@pytest.mark.parametrize("url", ["/login/", "/admin/login/"])
@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_looking_at_a_login_page_is_no_attempt(
    client: Client, drain: Drain, valkey: redis.Redis, method: str, url: str
) -> None:
    for _ in range(5):
        answer = getattr(client, method)(f"{url}?username=alice&password={GUESS}")
        assert answer.status_code == 200
    assert kept_keys(valkey) == []
    assert (drain(), CountingBackend.checks) == (0, 0)


def test_a_locked_client_can_look_at_the_login_page(post: Post, client: Client, redis_store: RedisStore) -> None:
    assert [post().status_code for _ in range(3)] == [401, 401, 429]
    assert client.get("/login/").status_code == 200
