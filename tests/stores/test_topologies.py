"""A store of several servers: a cluster, and a Sentinel that replaces a primary that is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
import redis.cluster
from redis.backoff import NoBackoff
from redis.retry import Retry

from axes_async.errors import StoreIncomplete, StoreUnavailable
from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter
from axes_async.stores.contract import Position
from axes_async.stores.factory import get_failover, get_store
from axes_async.stores.redis.store import RedisStore
from axes_async.utils import reset
from tests import servers
from tests.actions import failure, success
from tests.stores.places import NAMESPACE, completed
from tests.stores.steps import Steps, Time
from tests.topologies import Cluster, Watched
from tests.waiting import until

Drain = Callable[[], int]


@pytest.fixture
def clustered(cluster: Cluster, time: Time) -> Iterator[RedisStore]:
    """Return a store on a cluster, complete."""
    cluster.empty()
    with closing(cluster.client()) as client, closing(completed(RedisStore(client, namespace=NAMESPACE))) as store:
        yield store


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Return a primary that a Sentinel watches over."""
    topology = Watched()
    yield topology
    topology.stop()


def completed_by_sync() -> None:
    from axes_async.tasks.sync import sync_store

    store = get_store()
    assert isinstance(store, RedisStore)
    assert sync_store(store)


def test_slot_that_moves_to_another_node_is_followed_and_not_trusted(
    cluster: Cluster, clustered: RedisStore, time: Time
) -> None:
    steps = Steps(clustered, time)
    steps.fail("a")
    cluster.move(clustered.state_key)
    with pytest.raises(StoreIncomplete):
        steps.fail("b")
    assert clustered.invalidate(2).status == "lost"
    assert clustered.complete(2, 1)
    assert steps.fail("c").failures == (1,)
    assert [position for position, _ in clustered.read(Position(), 10)] == [Position(1, 0), Position(2, 0)]


def test_node_that_was_restarted_is_found_again(cluster: Cluster, clustered: RedisStore, time: Time) -> None:
    steps, node = Steps(clustered, time), cluster.owner(clustered.state_key)
    steps.fail("a")
    node.kill()
    with pytest.raises(StoreUnavailable):
        steps.fail("b")
    with pytest.raises(StoreUnavailable):
        clustered.probe()
    node.start()
    until(cluster.is_up, what="the cluster is one again")
    clustered.probe()
    with pytest.raises(StoreIncomplete):
        steps.fail("c")
    completed(clustered)
    assert steps.fail("d").failures == (1,)


def test_replica_that_is_promoted_is_not_trusted(watched: Watched, time: Time) -> None:
    with closing(completed(RedisStore(watched.client(), namespace=NAMESPACE))) as store:
        steps = Steps(store, time)
        for token in "abc":
            steps.fail(token)
        watched.settle()
        watched.primary.kill()
        with pytest.raises(StoreUnavailable):
            steps.fail("d")
        watched.promote()
        with pytest.raises(StoreIncomplete):
            steps.fail("e")
        assert store.key().status == "lost"
        assert len(store.read(Position(), 10)) == 3, "the outbox can still be drained"


@pytest.fixture
def on_cluster(cluster: Cluster, settings: Any) -> Iterator[RedisStore]:
    """Have the site keep its counters on a cluster; return its store."""
    cluster.empty()
    settings.AXES_REDIS_CLIENT = cluster.client
    completed_by_sync()
    store = get_store()
    assert isinstance(store, RedisStore)
    yield store
    store.client.close()


@pytest.mark.django_db(transaction=True)
def test_cluster_that_is_away_when_the_process_starts_is_a_store_that_is_away(cluster: Cluster, settings: Any) -> None:
    cluster.empty()
    is_there, closed = False, servers.Port()

    def client() -> Any:
        if not is_there:
            return redis.cluster.RedisCluster(host=servers.HOST, port=closed.number, retry=Retry(NoBackoff(), 0))
        return cluster.client()

    settings.AXES_REDIS_CLIENT, settings.AXES_STORE_RETRY_INTERVAL = client, 0.02
    assert [failure() for _ in range(4)] == [True, True, True, False]
    is_there = True
    until(lambda: not get_failover().is_away, what="the cluster is used")
    completed_by_sync()
    assert not failure()
    store = get_store()
    assert isinstance(store, RedisStore)
    store.client.close()
    closed.close()


@pytest.mark.django_db(transaction=True)
def test_on_a_cluster_a_client_is_locked_logged_and_reset(on_cluster: RedisStore, drain: Drain) -> None:
    assert [failure("alice", "192.0.2.1") for _ in range(5)] == [True, True, True, False, False]
    assert not success("alice", "192.0.2.1")
    assert success("bob", "192.0.2.2")
    drain()
    assert AccessFailureLog.objects.filter(repeats=0).count() == 3
    assert AccessAttempt.objects.get().failures_since_start == 3
    assert reset(ip="192.0.2.1") == 1
    assert success("alice", "192.0.2.1")
    assert on_cluster.key().status == "ok"


@pytest.mark.django_db(transaction=True)
def test_on_a_cluster_a_reset_of_everything_reaches_counters_without_rows(on_cluster: RedisStore) -> None:
    assert [failure("alice", f"192.0.2.{number // 4}") for number in range(8)] == [True, True, True, False] * 2
    reset()
    assert failure("alice", "192.0.2.0")
    assert failure("alice", "192.0.2.1")


@pytest.mark.django_db(transaction=True)
def test_cluster_that_is_emptied_frees_nobody(on_cluster: RedisStore, cluster: Cluster, drain: Drain) -> None:
    assert [failure("alice", "192.0.2.1") for _ in range(4)] == [True, True, True, False]
    drain()
    cluster.empty()
    assert not failure("alice", "192.0.2.1")
    completed_by_sync()
    assert not failure("alice", "192.0.2.1")


@pytest.mark.django_db(transaction=True)
def test_when_a_sentinel_replaces_the_primary_no_guess_is_given_away_and_none_is_lost(
    watched: Watched, settings: Any, drain: Drain
) -> None:
    settings.AXES_REDIS_CLIENT, settings.AXES_STORE_RETRY_INTERVAL = watched.client, 0.1
    completed_by_sync()
    assert [failure("alice", "192.0.2.1"), failure("alice", "192.0.2.1")] == [True, True]
    assert [failure("bob", "192.0.2.2") for _ in range(4)] == [True, True, True, False]
    drain()
    watched.settle()

    watched.primary.kill()
    assert failure("alice", "192.0.2.1"), "the third guess, counted in rows"
    assert get_failover().is_away
    assert not failure("alice", "192.0.2.1")
    assert not failure("bob", "192.0.2.2")

    watched.promote()
    until(lambda: not get_failover().is_away, what="it is used")
    completed_by_sync()
    assert not failure("alice", "192.0.2.1")
    assert not failure("bob", "192.0.2.2")
    assert failure("carol", "192.0.2.3")
    drain()
    assert AccessFailureLog.objects.filter(repeats=0).count() == 7
    assert sorted(AttemptCounter.objects.values_list("failures", flat=True)) == [1, 3, 3]
