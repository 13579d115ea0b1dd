"""What a site is told: one signal a lockout, one signal an unlock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.dispatch import Signal

from axes_async import signals
from axes_async.utils import reset
from tests.actions import failure

Post = Callable[..., Any]

pytestmark = pytest.mark.django_db


def heard(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    """Collect what ``signal`` sends."""
    sent: list[dict[str, Any]] = []

    def receive(sender: Any, **kwargs: Any) -> None:
        sent.append(kwargs)

    signal.connect(receive)
    yield sent
    signal.disconnect(receive)


@pytest.fixture
def locked() -> Iterator[list[dict[str, Any]]]:
    """Return the lockouts that were told."""
    yield from heard(signals.user_locked_out)


@pytest.fixture
def unlocked() -> Iterator[list[dict[str, Any]]]:
    """Return the unlocks that were told."""
    yield from heard(signals.user_unlocked)


def test_a_lockout_is_told_once_with_who_and_where(alice: User, post: Post, locked: list[dict[str, Any]]) -> None:
    for _ in range(6):
        response = post(REMOTE_ADDR="203.0.113.7")
    (told,) = locked
    assert (told["username"], told["ip_address"]) == ("alice", "203.0.113.7")
    assert told["request"].path == response.wsgi_request.path


@pytest.mark.parametrize(
    ("rules", "parameters", "limit", "minutes"),
    [
        ([{"parameters": "ip_address", "limit": 3, "cooloff": timedelta(minutes=5)}], ("ip_address",), 3, 5),
        ([{"parameters": "ip_address", "limit": 2}], ("ip_address",), 2, None),
        (
            [{"parameters": "username", "tiers": [(2, timedelta(minutes=7)), (3, timedelta(hours=1))]}],
            ("username",),
            2,
            7,
        ),
        (
            [
                {"parameters": "username", "limit": 2, "cooloff": timedelta(minutes=5)},
                {"parameters": "ip_address", "limit": 2, "cooloff": timedelta(minutes=9)},
                {"parameters": ["username", "ip_address"], "limit": 9, "cooloff": timedelta(hours=9)},
            ],
            ("ip_address",),
            2,
            9,
        ),
    ],
)
def test_a_lockout_is_told_with_its_rule_its_limit_and_its_end(
    settings: Any,
    any_store: str,
    locked: list[dict[str, Any]],
    rules: Any,
    parameters: tuple[str, ...],
    limit: int,
    minutes: int | None,
) -> None:
    settings.AXES_LOCKOUT_RULES = rules
    with time_machine.travel(datetime(2030, 1, 1, 12, tzinfo=UTC), tick=False):
        for _ in range(limit):
            failure()
    (told,) = locked
    assert (told["rule"].parameters, told["limit"]) == (parameters, limit)
    assert told["end"] == (None if minutes is None else datetime(2030, 1, 1, 12, minutes, tzinfo=UTC))


def test_a_counter_between_two_tiers_is_not_what_has_locked(settings: Any, locked: list[dict[str, Any]]) -> None:
    settings.AXES_LOCKOUT_RULES = [
        {"parameters": "username", "tiers": [(2, timedelta(minutes=20)), (9, timedelta(hours=10))]},
        {"parameters": "ip_address", "limit": 2, "cooloff": timedelta(minutes=5)},
    ]
    with time_machine.travel(datetime(2030, 1, 1, 12, tzinfo=UTC), tick=False) as clock:
        for address in ("192.0.2.1", "192.0.2.9"):
            for _ in range(2):
                failure("alice", address)
            clock.shift(timedelta(minutes=21))
    assert [told["rule"].parameters for told in locked] == [("username",), ("ip_address",)]
    assert [told["end"].hour * 60 + told["end"].minute for told in locked] == [12 * 60 + 20, 12 * 60 + 26]


def test_a_new_lockout_after_a_reset_is_told_again(alice: User, post: Post, locked: list[dict[str, Any]]) -> None:
    for _ in range(2):
        for _ in range(4):
            post()
        reset()
    assert len(locked) == 2


def test_a_receiver_may_refuse_the_request_and_the_failure_is_counted_all_the_same(alice: User, post: Post) -> None:
    def refuse(sender: Any, **kwargs: Any) -> None:
        raise PermissionDenied("go away")

    signals.user_locked_out.connect(refuse)
    try:
        assert [post().status_code for _ in range(4)] == [401, 401, 429, 429]
    finally:
        signals.user_locked_out.disconnect(refuse)


def test_a_reset_tells_each_lockout_that_it_lifts(
    settings: Any, unlocked: list[dict[str, Any]], django_capture_on_commit_callbacks: Any
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username", ["username", "ip_address"]]
    for _ in range(3):
        failure("alice", "192.0.2.1")
    failure("bob", "192.0.2.2")
    with django_capture_on_commit_callbacks(execute=True):
        reset()
    told = {(tuple(one["parameters"]), one["username"], one["ip_address"]) for one in unlocked}
    assert told == {
        (("ip_address",), None, "192.0.2.1"),
        (("username",), "alice", None),
        (("ip_address", "username"), "alice", "192.0.2.1"),
    }
    assert len(unlocked) == 3


def test_a_receiver_of_an_unlock_that_fails_stops_no_reset(
    django_capture_on_commit_callbacks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(sender: Any, **kwargs: Any) -> None:
        raise RuntimeError("no mail today")

    for _ in range(3):
        failure()
    signals.user_unlocked.connect(fail)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            assert reset() == 1
    finally:
        signals.user_unlocked.disconnect(fail)
    assert "user_unlocked failed" in caplog.text
    assert failure()
