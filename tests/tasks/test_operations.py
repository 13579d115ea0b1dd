"""What an operator asks of the outbox and of the checks: room, dead letters that come late, a deployment."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import override_settings

from axes_async.counters.events import AttemptEvent
from axes_async.models import AccessFailureLog, AttemptCounter
from axes_async.stores.contract import Position
from axes_async.stores.redis.store import RedisStore
from axes_async.utils import reset
from tests.actions import failure
from tests.celery import app
from tests.tasks.agreement import in_store_and_rows

Drain = Callable[[], int]

pytestmark = pytest.mark.django_db

IN_MEMORY = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}


@override_settings(AXES_OUTBOX_MAX=2)
def test_reset_in_spite_of_a_full_outbox(drain: Drain, redis_store: RedisStore) -> None:
    for _ in range(3):
        failure()
    assert reset(ip="192.0.2.1") == 1
    assert failure()


@override_settings(AXES_OUTBOX_MAX=1)
def test_reset_reaches_a_counter_that_no_row_speaks_of(drain: Drain) -> None:
    failure("bob", "192.0.2.2")
    for _ in range(3):
        failure()
    assert not failure()
    assert reset(ip="192.0.2.1") == 0
    assert failure()


def test_late_event_takes_nothing_back_of_what_later_ones_have_told(
    drain: Drain, redis_store: RedisStore, valkey: redis.Redis
) -> None:
    failure()
    ((position, early),) = redis_store.read(Position(), 10)
    assert isinstance(early, AttemptEvent)
    failure()
    failure()
    redis_store.trim(position)
    drain()
    assert AttemptCounter.objects.get().failures == 2
    redis_store.set_aside(early.wire().encode(), "for the test")
    call_command("axes_dead_letters", "--retry", stdout=io.StringIO())
    drain()
    assert AccessFailureLog.objects.count() == 3
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows
    valkey.flushdb()
    assert not failure()


def deployed(**settings: Any) -> set[str]:
    """Return what ``check --deploy`` finds of ours."""
    with override_settings(**settings):
        found = run_checks(tags=["axes_async"], include_deployment_checks=True)
    return {message.id or "" for message in found}


def test_a_site_set_up_as_the_readme_says_has_two_things_to_think_about() -> None:
    assert deployed() == {"axes_async.W008", "axes_async.I001"}
    assert deployed(AXES_COOLOFF_TIME=1, AXES_LOCKOUT_PARAMETERS=["ip_address", "username"]) == set()


class OwnCache(LocMemCache):
    """A site's own version."""


@pytest.mark.parametrize(
    "backend",
    [
        "django.core.cache.backends.locmem.LocMemCache",
        "django.core.cache.backends.dummy.DummyCache",
        "tests.tasks.test_operations.OwnCache",
    ],
)
def test_a_cache_of_one_process_is_reported(backend: str) -> None:
    caches = {"default": {"BACKEND": backend}}
    assert "axes_async.W005" in deployed(CACHES=caches)


def test_a_store_that_forgets_is_reported(valkey: redis.Redis) -> None:
    valkey.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "axes_async.W006" in deployed()
    finally:
        valkey.config_set("maxmemory-policy", "noeviction")


def test_a_schedule_without_our_tasks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.conf, "beat_schedule", {})
    assert "axes_async.W007" in deployed()


def test_a_schedule_that_never_purges_is_reported_where_rows_are_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(app.conf.beat_schedule, "axes_async.purge")
    assert "axes_async.W007" not in deployed()
    assert "axes_async.W007" in deployed(AXES_ACCESS_LOG_AGE=90)
    assert "axes_async.W007" in deployed(AXES_ACCESS_FAILURE_LOG_PER_USER_LIMIT=1000)


def test_switched_off_nothing_is_reported() -> None:
    assert deployed(AXES_ENABLED=False, CACHES=IN_MEMORY) == set()
