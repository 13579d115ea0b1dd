"""Naive times, in the site's zone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import time_machine
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client, override_settings

from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
from axes_async.models.rollups import AttemptRollup, TopValues
from axes_async.tasks.drain import drain
from axes_async.tasks.expire import expire
from tests.actions import failure
from tests.conftest import PASSWORD
from tests.ways_in.story import back_by, follow

pytestmark = [pytest.mark.django_db]

AWAY = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"}}
NOON = datetime(2026, 5, 1, 16, tzinfo=UTC).timestamp()
"""Noon in New York; without a zone, which the clock would travel to as well."""


def enter(password: str) -> Any:
    return Client().post("/login/", {"username": "alice", "password": password})


@back_by
def test_the_login_view(alice: User, back: str) -> None:
    follow(enter, back, right=302, wrong=200, path="/login/")


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=30))
def test_times_are_those_of_the_sites_zone(alice: User) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        enter("wrong")
        drain()
        clock.shift(60)
        enter(PASSWORD)
        drain()
    attempt = AccessAttempt.objects.get()
    assert attempt.attempt_time == datetime(2026, 5, 1, 12)  # noqa: DTZ001  (naive is the point)
    assert attempt.expires_at == datetime(2026, 5, 1, 12, 30)  # noqa: DTZ001
    assert AccessFailureLog.objects.get().attempt_time.hour == 12
    assert AccessLog.objects.get().attempt_time.minute == 1


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=30))
def test_a_flushed_store_takes_the_end_of_a_lockout_from_the_rows(alice: User, valkey: redis.Redis) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        for _ in range(3):
            enter("wrong")
        drain()
        valkey.flushall()
        clock.shift(timedelta(minutes=29))
        response = enter(PASSWORD)
        assert (response.status_code, response["Retry-After"]) == (429, "60")
        clock.shift(timedelta(minutes=1))
        assert enter(PASSWORD).status_code == 302
        drain()
        assert expire()["attempts"] == 1


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=30), CACHES=AWAY)
def test_without_a_store_a_lockout_ends_in_time(alice: User) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        assert [enter("wrong").status_code for _ in range(3)] == [200, 200, 429]
        clock.shift(timedelta(minutes=29))
        assert enter(PASSWORD)["Retry-After"] == "60"
        clock.shift(timedelta(minutes=1))
        assert enter(PASSWORD).status_code == 302


def test_the_status_is_told_in_the_sites_zone(alice: User, capsys: pytest.CaptureFixture[str]) -> None:
    with time_machine.travel(NOON, tick=False):
        drain()
        expire()
        call_command("axes_status", "--json")
        assert json.loads(capsys.readouterr().out)["last_drain"] == "2026-05-01T12:00:00"
        call_command("axes_status")
        assert "2026-05-01 12:00:00" in capsys.readouterr().out


@override_settings(AXES_COOLOFF_TIME=timedelta(hours=1))
def test_the_hour_that_a_clock_skips_is_not_told_of_a_lockout(capsys: pytest.CaptureFixture[str]) -> None:
    with time_machine.travel(datetime(2026, 3, 8, 6, 59, tzinfo=UTC).timestamp(), tick=False):
        for _ in range(3):
            failure("alice", "192.0.2.1")
        drain()
        call_command("axes_explain", "--ip", "192.0.2.1")
    assert "locked for 1 hour." in capsys.readouterr().out.replace("\xa0", " ")


def test_the_hour_that_a_clock_goes_through_twice_has_the_attempts_of_both() -> None:
    with time_machine.travel(datetime(2026, 11, 1, 5, 30, tzinfo=UTC).timestamp(), tick=False) as clock:
        failure("alice", "192.0.2.1")
        clock.shift(timedelta(hours=1))
        failure("alice", "192.0.2.1")
        drain()
    assert AttemptRollup.objects.get().failed == 2
    assert json.loads(TopValues.objects.get(kind="name").counts) == {"alice": 2}
