"""A store of several servers, by AXES_REDIS_CLIENT: a cluster, and a Sentinel that replaces a primary that is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.cluster
from redis.backoff import NoBackoff
from redis.retry import Retry

from axes_async.errors import StoreBusy
from axes_async.management.status import status
from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter
from axes_async.stores.factory import get_failover, get_store
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.store import RedisStore
from axes_async.utils import reset
from tests import servers
from tests.actions import failure, success
from tests.faults.machines import until
from tests.topologies import Cluster, Watched

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[[], int]
BOUNDS = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "retry": Retry(NoBackoff(), 0)}


@pytest.fixture
def on_cluster(cluster: Cluster, settings: Any) -> Iterator[RedisStore]:
    """Have the site keep its counters on a cluster; return its store."""
    cluster.empty()
    settings.AXES_REDIS_CLIENT = cluster.client
    store = get_store()
    assert isinstance(store, RedisStore)
    yield store
    store.client.close()


@pytest.fixture
def watched(settings: Any) -> Iterator[Watched]:
    """Have the site keep its counters on a primary that a Sentinel watches over."""
    topology = Watched()
    settings.AXES_REDIS_CLIENT, settings.AXES_STORE_REST = topology.client, 0.1
    yield topology
    get_failover().is_away = False  # So that its watcher ends.
    get_store().client.close()  # type: ignore[attr-defined]
    topology.stop()


def test_a_cluster_that_is_away_when_the_process_starts_is_a_store_that_is_away(
    cluster: Cluster, settings: Any
) -> None:
    cluster.empty()
    is_there = False

    def client() -> Any:
        if not is_there:
            return redis.cluster.RedisCluster(host="127.0.0.1", port=servers.free_port(), **BOUNDS)
        return cluster.client()

    settings.AXES_REDIS_CLIENT, settings.AXES_STORE_REST = client, 0.02
    assert [failure() for _ in range(4)] == [True, True, True, False]
    assert status().store_error
    is_there = True
    until(get_failover().is_there, what="the cluster is used")
    assert not failure()
    assert status().cold is not None
    store = get_store()
    assert isinstance(store, RedisStore)
    store.client.close()


def test_on_a_cluster_a_client_is_locked_logged_and_reset(on_cluster: RedisStore, drain: Drain) -> None:
    assert [failure("alice", "192.0.2.1") for _ in range(5)] == [True, True, True, False, False]
    assert not success("alice", "192.0.2.1")
    assert success("bob", "192.0.2.2")
    drain()
    assert AccessFailureLog.objects.filter(repeats=0).count() == 3
    assert AccessAttempt.objects.get().failures_since_start == 3
    assert reset(ip="192.0.2.1") == 1
    assert success("alice", "192.0.2.1")
    assert status().cold is False


def test_on_a_cluster_a_reset_finds_counters_that_no_row_tells_of(on_cluster: RedisStore) -> None:
    assert [failure("alice", f"192.0.2.{number // 4}") for number in range(8)] == [True, True, True, False] * 2
    reset()
    assert failure("alice", "192.0.2.0")
    assert failure("alice", "192.0.2.1")


def test_a_key_prefix_with_signs_of_a_pattern_is_a_name_like_any_other(settings: Any) -> None:
    cache = {**settings.CACHES["default"], "KEY_PREFIX": r"a*[b]?\^c"}
    settings.CACHES = {**settings.CACHES, "default": cache}
    assert [failure("alice", "192.0.2.1") for _ in range(4)] == [True, True, True, False]
    store = get_store()
    assert isinstance(store, RedisStore)
    assert [len(portion) for portion in store.digests()] == [1]
    reset()
    assert failure("alice", "192.0.2.1")


def test_a_cluster_that_is_emptied_frees_nobody(on_cluster: RedisStore, cluster: Cluster, drain: Drain) -> None:
    assert [failure("alice", "192.0.2.1") for _ in range(4)] == [True, True, True, False]
    drain()
    cluster.empty()
    assert not failure("alice", "192.0.2.1")


def test_when_a_sentinel_replaces_the_primary_no_guess_is_given_away_and_none_is_lost(
    watched: Watched, drain: Drain
) -> None:
    failover: FailoverStore = get_failover()
    assert [failure("alice", "192.0.2.1"), failure("alice", "192.0.2.1")] == [True, True]
    assert [failure("bob", "192.0.2.2") for _ in range(4)] == [True, True, True, False]
    drain()
    watched.settle()

    watched.kill_primary()
    assert failure("alice", "192.0.2.1"), "the third guess, counted in rows"
    assert failover.is_away
    assert not failure("alice", "192.0.2.1")
    assert not failure("bob", "192.0.2.2")

    until(watched.promoted, what="the replica has become the primary")
    until(failover.is_there, what="it is used")
    assert not failure("alice", "192.0.2.1")
    assert not failure("bob", "192.0.2.2")
    assert failure("carol", "192.0.2.3")
    drain()
    assert AccessFailureLog.objects.filter(repeats=0).count() == 7
    assert sorted(row.failures - row.lifted for row in AttemptCounter.objects.all()) == [1, 3, 3]


@pytest.mark.parametrize("pool", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_a_pool_without_a_free_connection_is_no_store_that_is_down(settings: Any, pool: type[Any]) -> None:
    options = {"timeout": 0.01} if pool is redis.BlockingConnectionPool else {}
    connections = pool.from_url(servers.valkey_url(), max_connections=1, **options)
    settings.AXES_REDIS_CLIENT = lambda: redis.Redis(connection_pool=connections)
    assert failure("alice", "192.0.2.1")
    taken = connections.get_connection()
    try:
        with pytest.raises(StoreBusy):
            get_store().probe()
        assert not failure("bob", "192.0.2.2")
        assert not get_failover().is_away
    finally:
        connections.release(taken)
    assert [failure("alice", "192.0.2.1") for _ in range(3)] == [True, True, False]
    connections.disconnect()
