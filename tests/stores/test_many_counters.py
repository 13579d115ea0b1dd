"""Very many counters and attempts: what a reset, an expiry and the admin ask for does not grow with those of others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
import time_machine
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from axes_async import guard
from axes_async.models import AccessAttempt, AttemptCounter
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.expire import expire
from axes_async.tasks.projection.resets import counters_of
from axes_async.tasks.reset import reset
from tests.actions import failure, request_from
from tests.stores.test_cold_store import in_store_and_rows

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.database]

COUNTERS = "{axes}:c:*"


def fail_from(number: int, username: str = "alice", times: int = 1) -> None:
    for address in range(number):
        for _ in range(times):
            failure(username, f"198.51.{address // 250}.{address % 250}")


def indexes_of(table: str) -> dict[str, list[str]]:
    """Return the columns of each index."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, table)
    return {name: entry["columns"] for name, entry in found.items() if entry["index"] or entry["unique"]}


def test_a_digest_is_indexed_once_and_not_for_a_search_within_it() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("Django gives a column two indexes on PostgreSQL alone.")
    for model in (AccessAttempt, AttemptCounter):
        single = [columns[0] for columns in indexes_of(model._meta.db_table).values() if len(columns) == 1]
        digests = [column for column in single if column.endswith("key") or column == "digest"]
        assert sorted(digests) == sorted(set(digests))
        assert digests


@pytest.mark.parametrize(
    "parameters", [["ip_address", "username"], ["ip_address", "user_agent"]], ids=["a name", "an agent"]
)
def test_an_attempt_finds_its_counter_without_those_of_others_that_share_a_value(
    drain: Drain, settings: Any, parameters: list[str]
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = [parameters, "ip_address"]
    fail_from(30)
    drain()
    attempt = AccessAttempt.objects.get(ip_address="198.51.0.7")
    with CaptureQueriesContext(connection) as queries:
        found = [row.pk for row in counters_of([attempt], "default")]
    assert len(queries) == 1
    assert sorted(found) == sorted(AttemptCounter.objects.filter(ip_address="198.51.0.7").values_list("pk", flat=True))
    assert len(found) == 2


def test_a_reset_of_a_name_takes_its_failures_alone_back_from_a_thousand_addresses(
    drain: Drain, redis_store: RedisStore
) -> None:
    fail_from(1100)
    fail_from(200, "bob")
    drain()
    drain()
    assert reset(username="alice") == 1100
    standing = {row.ip_address: row.failures - row.lifted for row in AttemptCounter.objects.all()}
    assert list(standing.values()).count(1) == 200
    assert list(standing.values()).count(0) == 900
    assert standing["198.51.0.199"] == 1
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows


def test_a_reset_of_everything_asks_the_database_as_often_for_many_counters_as_for_few(drain: Drain) -> None:
    asked = []
    for number in (20, 320):
        fail_from(number)
        drain()
        with CaptureQueriesContext(connection) as queries:
            assert reset() == number
        asked.append(len(queries))
    assert asked[0] == asked[1]


def test_a_reset_leaves_nothing_of_a_counter_in_the_store_but_reservations(
    drain: Drain, valkey: redis.Redis, settings: Any
) -> None:
    settings.AXES_COOLOFF_TIME = timedelta(hours=1)
    fail_from(20, times=2)
    drain()
    request = request_from("198.51.0.7")
    assert guard.reserve(request, {"username": "alice"}) is not None
    assert len(valkey.keys(COUNTERS)) == 20
    reset()
    (key,) = valkey.keys(COUNTERS)
    assert all(name.startswith("r") for name in valkey.hgetall(key))
    assert 0 < valkey.pttl(key) <= 30_000
    guard.fail(request, {"username": "alice"})
    assert AccessAttempt.objects.count() == 0
    drain()
    assert AttemptCounter.objects.get(digest=key.rpartition(":")[2]).failures == 1


@override_settings(AXES_COOLOFF_TIME=timedelta(minutes=10))
def test_a_portion_of_an_expiry_goes_on_where_the_last_one_ended(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axes_async.tasks.expire.PORTION", 7)
    fail_from(20)
    drain()
    with time_machine.travel(timedelta(minutes=11)), CaptureQueriesContext(connection) as queries:
        assert expire() == {"attempts": 20, "counters": 20}
    looked = [query["sql"].replace('"', "").replace("`", "") for query in queries if "ORDER BY" in query["sql"]]
    goes_on = ["expires_at >=" in sql for sql in looked]
    assert goes_on == [False, True, True, False, True, True], "of attempts, of counters"


def test_counters_that_were_taken_back_are_forgotten_in_portions(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axes_async.tasks.expire.PORTION", 7)
    monkeypatch.setattr("axes_async.tasks.expire.AT_ONCE", 16)
    fail_from(20)
    reset()
    with time_machine.travel(timedelta(days=2)):
        fail_from(3)
        drain()
        assert expire() == {"attempts": 0, "counters": 16}
        assert expire() == {"attempts": 0, "counters": 1}
        assert AttemptCounter.objects.count() == 3
