"""What every lockout keeps to, wherever the counters are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter
from axes_async.signals import user_locked_out
from axes_async.tasks.expire import expire
from axes_async.utils import reset
from tests.actions import failure
from tests.conftest import PASSWORD
from tests.site import CountingBackend

Post = Callable[..., Any]
Drain = Callable[[], int]
HOME, OFFICE = "203.0.113.7", "198.51.100.8"

pytestmark = [pytest.mark.django_db]


@pytest.mark.parametrize("rules", [["username"], ["ip_address"], [["username", "ip_address"]]], ids=str)
def test_another_agent_with_every_guess_gains_nothing(any_store: str, settings: Any, rules: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = rules
    assert [failure("alice", HOME, f"agent {number}") for number in range(5)] == [True] * 3 + [False] * 2


@pytest.mark.parametrize(
    "rules",
    [
        ["ip_address", "username", ["username", "ip_address"]],
        [["username", "ip_address", "user_agent"]],
        [["username", "user_agent"], "ip_address"],
    ],
    ids=str,
)
@pytest.mark.parametrize("who", [{}, {"username": "alice"}, {"ip": HOME}, {"username": "Alice", "ip": HOME}], ids=str)
def test_a_reset_really_unlocks(any_store: str, settings: Any, rules: Any, who: dict[str, str]) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = rules
    assert [failure("alice", HOME) for _ in range(4)] == [True] * 3 + [False]
    assert reset(**who) == 1
    assert [failure("alice", HOME) for _ in range(4)] == [True] * 3 + [False]


def test_the_right_password_changes_nothing_while_locked(
    alice: User, any_store: str, post: Post, settings: Any, drain: Drain
) -> None:
    settings.AXES_RESET_ON_SUCCESS, settings.AXES_COOLOFF_TIME = True, timedelta(minutes=5)
    for _ in range(3):
        post()
    drain()
    before = AttemptCounter.objects.values("digest", "failures", "expires_at").get()
    for _ in range(3):
        assert post(password=PASSWORD).status_code == 429
    assert CountingBackend.checks == 3
    drain()
    assert AttemptCounter.objects.values("digest", "failures", "expires_at").get() == before
    assert not AccessLog.objects.exists()
    assert post(password=PASSWORD).status_code == 429


def test_a_lockout_is_told_once_and_by_name(alice: User, any_store: str, post: Post, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username", ["username", "ip_address"]]
    told: list[tuple[Any, Any]] = []

    def hear(sender: Any, **kwargs: Any) -> None:
        told.append((kwargs["username"], kwargs["ip_address"]))

    user_locked_out.connect(hear)
    try:
        for _ in range(6):
            post()
    finally:
        user_locked_out.disconnect(hear)
    assert told == [("alice", "127.0.0.1")]


@pytest.mark.database
@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_times_are_right_with_and_without_time_zones(
    alice: User, any_store: str, post: Post, settings: Any, drain: Drain, use_tz: bool, zone: str
) -> None:
    settings.USE_TZ, settings.TIME_ZONE = use_tz, zone
    settings.AXES_COOLOFF_TIME = timedelta(minutes=5)
    before = timezone.now()
    assert [post().status_code for _ in range(4)] == [401, 401, 429, 429]
    assert post(REMOTE_ADDR=OFFICE, password=PASSWORD).status_code == 204
    drain()
    after = timezone.now()
    rows = [AccessAttempt.objects.get(), AccessLog.objects.get(), *AccessFailureLog.objects.all()]
    slack = timedelta(milliseconds=1)
    assert all(before - slack <= row.attempt_time <= after for row in rows)
    attempt, counter = AccessAttempt.objects.get(), AttemptCounter.objects.get(failures__gt=0)
    assert attempt.expires_at is not None
    assert timedelta(minutes=5) <= attempt.expires_at - attempt.attempt_time <= timedelta(minutes=5, seconds=10)
    assert counter.expires_at == attempt.expires_at
    assert expire()["attempts"] == 0
    assert AttemptCounter.objects.filter(failures=3).exists()
    assert reset() == 1
    assert post(password=PASSWORD).status_code == 204
