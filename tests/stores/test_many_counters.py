"""Very many counters and attempts: what a reset or the admin asks for does not grow with those of others."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Collection
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from axes_async.counters.rules import Counter, Rule
from axes_async.models import AccessAttempt, AttemptCounter
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.projection.counters import counters_of
from axes_async.tasks.reset import reset
from tests.actions import failure

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def fail_from(number: int, username: str = "alice") -> None:
    for address in range(number):
        failure(username, f"198.51.{address // 250}.{address % 250}")


def indexes_of(table: str) -> dict[str, list[str]]:
    """Return the columns of each index."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, table)
    return {name: entry["columns"] for name, entry in found.items() if entry["index"] or entry["unique"]}


def in_the_store(store: RedisStore, digests: Collection[str]) -> dict[str, int]:
    """Return the failures of each counter as the store has them."""
    rule = Rule(parameters=("ip_address",), limit=3, cooloff=None)
    states = store.states([Counter(rule, digest) for digest in digests])
    return {digest: state.failures for digest, state in zip(digests, states, strict=True)}


def test_digest_is_indexed_once_and_not_for_a_search_within_it() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("Django gives a column two indexes on PostgreSQL alone.")
    for model in (AccessAttempt, AttemptCounter):
        single = [columns[0] for columns in indexes_of(model._meta.db_table).values() if len(columns) == 1]
        digests = [column for column in single if column.endswith("key") or column == "digest"]
        assert len(digests) == len(set(digests))
        assert digests


@pytest.mark.parametrize(
    "parameters", [["ip_address", "username"], ["ip_address", "user_agent"]], ids=["a name", "an agent"]
)
def test_attempt_finds_its_counter_without_those_of_others_that_share_a_value(
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


def test_reset_of_a_name_takes_its_failures_alone_back_from_a_thousand_addresses(
    drain: Drain, redis_store: RedisStore
) -> None:
    fail_from(1100)
    fail_from(200, "bob")
    drain()
    drain()
    assert reset(username="alice") == 1100
    rows = dict(AttemptCounter.objects.exclude(ip_address_key="").values_list("digest", "failures"))
    assert Tally(rows.values()) == {0: 900, 1: 200}
    assert in_the_store(redis_store, rows) == rows
    assert not AttemptCounter.objects.filter(dirty=True).exists()
