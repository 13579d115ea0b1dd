"""The limit under concurrency: exact, in one process and across several, and no valid login turned away."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, override_settings

from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter
from axes_async.stores.redis.store import RedisStore
from tests import servers
from tests.actions import failure
from tests.conftest import PASSWORD, REFUSED
from tests.nursery import Process
from tests.site import CountingBackend
from tests.stores.patience import take_all_the_time
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(threads: int, call: Callable[[int], Any]) -> list[Any]:
    """Call ``call`` with each number in a thread of its own, all released together."""
    start = Barrier(threads)

    def run(number: int) -> Any:
        start.wait()
        try:
            return call(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


def sign_in(password: str, **extra: Any) -> int:
    return Client().post("/sign-in/", {"username": "alice", "password": password}, **extra).status_code


@pytest.mark.parametrize("parameters", [["ip_address"], ["username"], [["username", "ip_address"]]])
def test_of_100_wrong_passwords_at_once_5_are_looked_at(
    alice: User, drain: Callable[[], int], settings: Any, parameters: list[Any]
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_FAILURE_LIMIT = parameters, 5
    CountingBackend.seconds = 0.05
    statuses = Counter(at_once(100, lambda number: sign_in(f"guess {number}")))
    assert CountingBackend.checks == 5
    assert statuses == {401: 4, 429: 96}
    drain()
    assert AccessAttempt.objects.get().failures_since_start == 5
    assert AccessFailureLog.objects.filter(locked_out=False).count() == 4


@override_settings(AXES_FAILURE_LIMIT=5, AXES_RESERVE_WAIT=PATIENCE)
@pytest.mark.parametrize("url", ["/sign-in/", "/login/"])
def test_of_30_right_passwords_at_once_every_one_is_let_in(alice: User, url: str) -> None:
    CountingBackend.seconds = 0.05

    def enter(number: int) -> int:
        return Client().post(url, {"username": "alice", "password": PASSWORD}).status_code

    assert set(at_once(30, enter)) <= {204, 302}
    assert CountingBackend.checks == 30


@override_settings(AXES_FAILURE_LIMIT=5)
def test_200_threads_at_once_are_all_answered(alice: User) -> None:
    def guess(number: int) -> int:
        return sign_in("wrong", REMOTE_ADDR=f"198.51.100.{number}")

    assert Counter(at_once(200, guess)) == {401: 200}


@pytest.mark.database
@pytest.mark.skipif(connection.vendor == "sqlite", reason="threads share one connection to a database in memory")
@pytest.mark.parametrize("away", [False, True], ids=["the only store", "the store is away"])
def test_of_40_wrong_passwords_at_once_5_are_looked_at_where_the_database_decides(
    alice: User, drain: Callable[[], int], settings: Any, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    take_all_the_time(monkeypatch.setattr)
    if away:
        settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": REFUSED}}
    else:
        settings.AXES_STORE = "database"
    settings.AXES_FAILURE_LIMIT = 5
    CountingBackend.seconds = 0.05
    statuses = Counter(at_once(40, lambda number: sign_in(f"guess {number}")))
    assert CountingBackend.checks == 5
    assert statuses == {401: 4, 429: 36}
    drain()
    assert AccessAttempt.objects.get().failures_since_start == 5
    assert AccessFailureLog.objects.filter(locked_out=False).count() == 4


def in_4_processes(*arguments: str, **variables: str) -> tuple[int, Counter[str]]:
    """Have four processes of guessers guess at once; return how many passwords were looked at, and the statuses."""
    environment = {**os.environ, "AXES_TEST_REDIS_URL": servers.valkey_url().removesuffix("/0")}
    environment |= {"AXES_TEST_DATABASE": "sqlite", "DJANGO_SETTINGS_MODULE": "tests.settings", **variables}
    processes = [Process("tests.guessers", *arguments, environment=environment) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [json.loads(process.stdout.read()) for process in processes]
    for process in processes:
        process.kill()
    statuses = sum((Counter(result["statuses"]) for result in results), Counter())
    return sum(result["checks"] for result in results), statuses


def test_across_4_processes_5_of_100_wrong_passwords_are_looked_at() -> None:
    assert in_4_processes("25") == (5, {"401": 4, "429": 96})


@pytest.mark.skipif(connection.vendor != "postgresql", reason="of PostgreSQL")
def test_across_4_processes_5_of_40_wrong_passwords_are_looked_at_in_the_database() -> None:
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
    entry = json.dumps({name: connection.settings_dict[name] for name in names})
    assert in_4_processes("10", AXES_TEST_COUNTERS=entry) == (5, {"401": 4, "429": 36})
    assert AttemptCounter.objects.get().failures == 5


def test_four_drains_at_once_write_each_event_once(drain: Callable[[], int], redis_store: RedisStore) -> None:
    for number in range(1500):
        failure(f"user{number % 7}", f"192.0.2.{number % 200}")
    events = redis_store.client.xlen(redis_store.outbox_key)
    at_once(4, lambda number: drain())
    assert AccessFailureLog.objects.count() == events
    counted = (
        AccessFailureLog.objects.filter(locked_out=False).count() + AttemptCounter.objects.filter(failures=3).count()
    )
    assert sum(AccessAttempt.objects.values_list("failures_since_start", flat=True)) == counted
