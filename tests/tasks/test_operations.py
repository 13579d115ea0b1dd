"""What an operator asks: how things stand, what could not be written, take the counters from the rows again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import time_machine
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import DatabaseError
from django.test import override_settings

from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.models import AccessAttempt, AccessFailureLog
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.expire import expire
from axes_async.tasks.projection import projector as fold
from axes_async.utils import reset
from tests.actions import failure
from tests.celery import app

Drain = Callable[[], int]

pytestmark = pytest.mark.django_db

ON_A_CLOSED_PORT = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
}
IN_MEMORY = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}


def run(*arguments: str) -> str:
    """Run a command; return what it printed."""
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def told(*arguments: str) -> tuple[dict[str, Any], int]:
    """Return what ``axes_status --json`` tells, and its exit status."""
    out, code = io.StringIO(), 0
    try:
        call_command("axes_status", "--json", *arguments, stdout=out)
    except SystemExit as end:
        code = int(end.code or 0)
    return json.loads(out.getvalue()), code


def test_all_is_well_after_a_drain(drain: Drain) -> None:
    failure()
    drain()
    expire()
    status, code = told()
    assert (status["problems"], code) == ([], 0)
    assert (status["store"], status["cold"], status["dead_letters"], status["overflow"]) == ("redis", False, 0, 0)
    assert status["last_drain"]
    assert status["last_expiry"] == status["beat_seen"]
    assert status["breakers"] == {"store": "closed", "broker": "closed", "database": "closed"}


def test_a_backlog_is_told_and_is_a_problem_when_it_is_old() -> None:
    failure()
    status, code = told()
    assert (status["backlog"], code) == (1, 0)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=2)):
        status, code = told()
    assert code == 1
    assert "Events wait since" in status["problems"][0]


@override_settings(AXES_OUTBOX_MAX=2)
def test_a_reset_finds_room_in_an_outbox_that_is_full() -> None:
    for _ in range(3):
        failure()
    assert reset() == 1
    assert failure()


@override_settings(AXES_OUTBOX_MAX=2)
def test_events_that_found_no_room_are_counted_and_told(drain: Drain) -> None:
    for _ in range(3):
        failure()
    assert not failure(), "what found no room was counted all the same"
    drain()
    status, code = told()
    assert (status["overflow"], code) == (2, 1)
    status, code = told("--acknowledge")
    assert (status["overflow"], code) == (0, 0)


def test_beat_is_missed_when_it_is_silent_for_much_longer_than_its_schedule_has_it(drain: Drain) -> None:
    drain()
    expire()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=9)):
        assert told()[1] == 0
    with time_machine.travel(datetime.now(UTC) + timedelta(days=3)):
        status, code = told()
    assert code == 1
    assert "Nothing was heard of beat since" in status["problems"][0]


def test_dead_letters_are_told_shown_and_put_back(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = fold.Fold._attempts

    def refuse(self: Any, events: list[AttemptEvent]) -> None:
        if any(event.username == "mallory" for event in events):
            raise DatabaseError("no such column")
        attempts(self, events)

    with monkeypatch.context() as broken:
        broken.setattr(fold.Fold, "_attempts", refuse)
        failure("mallory")
        failure("alice")
        drain()
    assert told()[0]["dead_letters"] == 1
    assert told()[1] == 1
    shown = run("axes_dead_letters")
    assert "no such column" in shown
    assert "mallory" in shown
    assert "1 put back, 0 kept." in run("axes_dead_letters", "--retry")
    drain()
    assert AccessAttempt.objects.get(username="mallory").failures_since_start == 1
    assert AccessFailureLog.objects.count() == 2
    assert run("axes_dead_letters") == "No dead letters.\n"


def test_a_dead_letter_is_one_line_that_cannot_command_the_terminal(redis_store: RedisStore) -> None:
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(now_ms()), username="\x9b2J\u202emallory")
    redis_store.set_aside(event.wire(), "DataError: no such column\nLINE 1: \x1b[2J")
    shown = run("axes_dead_letters")
    assert shown.count("\n") == 1
    assert shown.replace("\n", "").replace("\t", "").isprintable()
    assert r"\x9b2J\u202emallory" in shown


def test_a_late_event_takes_nothing_back_of_what_later_ones_have_told(
    drain: Drain, redis_store: RedisStore, valkey: redis.Redis
) -> None:
    failure()
    ((_, early),) = redis_store.read("0-0", 10)
    assert isinstance(early, AttemptEvent)
    failure()
    failure()
    drain()
    redis_store.set_aside(early.wire(), "for the test")
    run("axes_dead_letters", "--retry")
    drain()
    valkey.flushall()
    assert not failure()


def test_what_is_no_event_stays_among_the_dead_letters(drain: Drain, redis_store: RedisStore) -> None:
    redis_store.client.xadd(redis_store.outbox_key, {"v1": "[", "c": ""})
    redis_store.record(AttemptEvent(kind=Kind.LOGGED_OUT, id=new_id(now_ms()), username="alice"))
    drain()
    assert "0 put back, 1 kept." in run("axes_dead_letters", "--retry")
    assert redis_store.dead_letter_count() == 1


def test_a_cold_store_is_a_problem_until_a_worker_comes(drain: Drain, valkey: redis.Redis) -> None:
    failure()
    drain()
    valkey.flushall()
    assert any("cold" in problem for problem in told()[0]["problems"])
    drain()
    assert told()[0]["cold"] is False


@override_settings(CACHES=ON_A_CLOSED_PORT)
def test_a_store_that_is_away_is_a_problem_and_no_error() -> None:
    status, code = told()
    assert code == 1
    assert "cannot be reached" in status["problems"][0]
    assert status["breakers"]["store"] == "open"


def test_a_broker_that_is_away_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.conf, "broker_url", "redis://127.0.0.1:1/0")
    status, code = told()
    assert (status["broker_error"] is not None, code) == (True, 1)


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=1))
def test_attempts_that_beat_does_not_remove_are_a_problem(drain: Drain) -> None:
    failure()
    drain()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=20)):
        assert any("Cooled-off" in problem for problem in told()[0]["problems"])
        expire()
        assert not any("Cooled-off" in problem for problem in told()[0]["problems"])


@override_settings(CACHES=IN_MEMORY)
def test_a_store_without_an_outbox_has_less_to_tell() -> None:
    status, code = told()
    assert (status["store"], status["backlog"], code) == ("cache", None, 0)
    with pytest.raises(CommandError, match="no outbox"):
        run("axes_dead_letters")


@pytest.mark.django_db(transaction=True)
def test_the_facts_are_readable(drain: Drain) -> None:
    failure()
    drain()
    lines = run("axes_status").splitlines()
    assert any(line.split() == ["backlog", "0"] for line in lines)
    assert any(line.startswith("last drain") and line.endswith("UTC") for line in lines)


def test_the_counters_are_taken_from_the_rows_when_asked_for(drain: Drain, valkey: redis.Redis) -> None:
    for _ in range(3):
        failure()
    drain()
    (key,) = valkey.keys("{axes}:c:*")
    valkey.delete(key)
    assert run("axes_rebuild") == "The counters were taken from the database.\n"
    assert not failure()


@override_settings(CACHES=ON_A_CLOSED_PORT)
def test_a_rebuild_of_a_store_that_is_away_fails_clearly() -> None:
    with pytest.raises(CommandError, match="cannot be rebuilt"):
        run("axes_rebuild")


def deployed(**settings: Any) -> set[str]:
    """Return what ``check --deploy`` finds of ours."""
    with override_settings(**settings):
        found = run_checks(tags=["axes_async"], include_deployment_checks=True)
    return {message.id or "" for message in found}


def test_a_site_set_up_as_the_readme_says_has_one_thing_to_think_about() -> None:
    assert deployed() == {"axes_async.W008"}
    assert deployed(AXES_COOLOFF_TIME=1) == set()


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
