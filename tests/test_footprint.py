"""What counters and events cost in the store's memory, and 10,000 events of a mixed load on their way to the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import RequestFactory

from axes_async import guard
from axes_async.clock import as_datetime, now_ms
from axes_async.stores.redis.store import RedisStore
from benchmarks.scenario import LOADS, Play

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
ACCEPT = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.django_db
def test_a_counter_costs_at_most_300_bytes_and_an_event_500(redis_store: RedisStore) -> None:
    headers: Any = {"User-Agent": CHROME, "Accept": ACCEPT}
    for number in range(2000):
        address = f"198.51.{number // 250}.{number % 250}"
        request = RequestFactory().post("/accounts/login/", REMOTE_ADDR=address, headers=headers)
        guard.fail(request, {"username": f"username{number:04}"})
    client = redis_store.client
    events = int(client.memory_usage(redis_store.outbox_key, samples=0) or 0)
    assert 200 < events / 2000 <= 500
    counters = [client.memory_usage(key) or 0 for key in client.scan_iter("*:c:*", count=1000)]
    assert len(counters) == 2000
    assert 50 < max(counters) <= 300


@pytest.mark.django_db(transaction=True)
def test_10_000_events_of_a_mixed_load_become_their_rows_exactly_once(
    redis_store: RedisStore, drain: Callable[[], int]
) -> None:
    """Failed, blocked, logins and logouts."""
    from benchmarks.drain import check

    began, play = as_datetime(now_ms()), Play(redis_store)
    LOADS["mixed"](play, 10_000)
    assert drain() == play.expected.events
    assert redis_store.size().events == 0
    check(play.expected, began)
