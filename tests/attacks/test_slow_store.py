"""A store that is slow, or a process that is: neither is a store that is away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest
from django.db import connection

from axes_async.counters.events import Kind
from axes_async.errors import StoreUnavailable
from axes_async.models import OutboxEvent, StoreState
from axes_async.stores.contract import Position
from axes_async.stores.redis import outbox
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from tests.attacks.proxies import Proxy
from tests.attacks.sites import Site
from tests.faults.machines import Valkey
from tests.faults.sending import counters, event
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.django_db(transaction=True)

WRONG, UNAVAILABLE = 401, 503
SOME, MANY = 350, 850
"""Logins at once on one process: both are more than it has connections to the store, and than PostgreSQL takes."""

NOBODY = ("nobody", "203.0.113.1")
CLIENTS = [(f"user{number}", f"198.51.{100 + number // 250}.{number % 250 + 1}") for number in range(MANY)]


def see_that_the_store_decides(own_store: RedisStore, site: Site, logins: int) -> None:
    assert Counter(status for status, _ in site.guess(CLIENTS[:logins])) == {WRONG: logins}
    assert StoreState.objects.get().mode == StoreState.STORE
    assert not OutboxEvent.objects.exists()
    assert own_store.size().events == logins


@pytest.mark.parametrize("logins", [SOME, pytest.param(MANY, marks=pytest.mark.long)])
@pytest.mark.parametrize("path", [pytest.param("/sign-in/", marks=pytest.mark.long), "/async-sign-in/"])
def test_hundreds_of_logins_at_once_are_decided_by_the_store(
    start_site: Callable[..., Site], own_store: RedisStore, path: str, logins: int
) -> None:
    see_that_the_store_decides(own_store, start_site("uvicorn", path=path), logins)


@pytest.mark.long
def test_850_logins_at_once_are_decided_by_a_slow_store(
    start_site: Callable[..., Site], own_store: RedisStore, proxy: Proxy
) -> None:
    proxy.delay = 0.05
    see_that_the_store_decides(own_store, start_site("uvicorn", valkey=proxy.url), MANY)


@pytest.mark.long
def test_850_logins_at_once_without_the_store_leave_connections_to_others(
    start_site: Callable[..., Site], own_valkey: Valkey
) -> None:
    site, known, counts = start_site("uvicorn"), connection.settings_dict, [0]
    assert site.guess([NOBODY])[0][0] == WRONG
    own_valkey.kill()
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"

    async def count() -> None:
        while True:
            counts.extend(number for (number,) in await asyncio.to_thread(lambda: other.execute(sessions).fetchall()))

    server = {"dbname": known["NAME"], "user": known["USER"], "host": known["HOST"]}
    with psycopg.connect(**server, autocommit=True) as other:
        statuses = Counter(status for status, _ in site.guess(CLIENTS, meanwhile=count))
    assert max(counts) < 100
    assert set(statuses) <= {WRONG, UNAVAILABLE}, "a busy machine may turn some away"
    until(lambda: OutboxEvent.objects.count() == statuses[WRONG], what="every password that was looked at has an event")


def test_worker_waits_longer_for_the_outbox_than_a_login_does(
    own_store: RedisStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PATIENCE", PATIENCE)
    client = build_client(proxy.url, {}, timeout=PATIENCE)
    with closing(RedisStore(client, namespace=own_store.counter_prefix[1:-4])) as store:
        store.do(
            Step(StepKind.FAIL, "token", counters("192.0.2.1", "alice"), event=event(Kind.FAILED, "alice", "192.0.2.1"))
        )
        (connection,) = filter(None, store.pool._free)
        connection.socket_timeout = 0.05
        connection._sock.settimeout(0.05)
        proxy.delay = 0.2
        ((position, _),) = store.read(Position(), 10)
        assert store.size().events == 1
        store.trim(position)
        assert store.rearm(position)
        assert store.dead_letters("0-0", 10) == []
        proxy.delay = PATIENCE
        with pytest.raises(StoreUnavailable):
            store.key()
