"""The store was flushed, replaced, or comes back with less than it had: nobody is freed by that, or locked."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter, StoreState
from axes_async.stores.factory import forget, get_store
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.reset import reset
from axes_async.tasks.sync import needs_sync, sync_store
from tests.actions import failure
from tests.faults.machines import Valkey
from tests.stores.patience import take_all_the_time
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[[], int]


def lock(username: str, address: str) -> None:
    assert [failure(username, address) for _ in range(4)] == [True, True, True, False]


def settle(drain: Drain, store: RedisStore) -> None:
    until(lambda: drain() == 0 and sync_store(store), what="drained and in step")


def restart(own_valkey: Valkey) -> None:
    """Kill the server, and have it come back as it was when it was last saved."""
    own_valkey.kill()
    own_valkey.start()


FAULTS: dict[str, Callable[[Valkey], Any]] = {
    "flushed": lambda valkey: valkey.client.flushall(),
    "restarted empty": restart,
    "replaced": Valkey.replace,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_locked_client_stays_locked_and_others_come_in(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, fault: str
) -> None:
    lock("alice", "192.0.2.1")
    drain()
    FAULTS[fault](own_valkey)
    assert not failure("alice", "192.0.2.1")
    assert failure("bob", "192.0.2.2")
    assert StoreState.objects.get().mode == StoreState.DATABASE
    assert needs_sync(own_store)
    settle(drain, own_store)
    assert StoreState.objects.get().mode == StoreState.STORE
    assert not failure("alice", "192.0.2.1")
    assert [failure("bob", "192.0.2.2") for _ in range(3)] == [True, True, False]


def test_old_snapshot_frees_no_client_that_was_locked_since(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    assert failure("alice", "192.0.2.1")
    drain()
    own_valkey.client.save()
    assert [failure("alice", "192.0.2.1") for _ in range(3)] == [True, True, False]
    drain()
    restart(own_valkey)
    assert not failure("alice", "192.0.2.1")
    settle(drain, own_store)
    assert not failure("alice", "192.0.2.1")


def test_events_of_an_old_snapshot_that_are_written_already_are_not_written_again(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    for number in range(5):
        failure(f"before{number}", f"192.0.2.{number}")
    own_valkey.client.save()
    for number in range(5):
        failure(f"after{number}", f"198.51.100.{number}")
    assert drain() == 10
    restart(own_valkey)
    assert own_valkey.client.xlen(own_store.outbox_key) == 5
    settle(drain, own_store)
    failure("new", "203.0.113.1")
    settle(drain, own_store)
    names = list(AccessFailureLog.objects.order_by("id").values_list("username", flat=True))
    assert names == [f"before{n}" for n in range(5)] + [f"after{n}" for n in range(5)] + ["new"]
    assert set(AccessAttempt.objects.values_list("failures_since_start", flat=True)) == {1}
    assert set(AttemptCounter.objects.values_list("failures", flat=True)) == {1}
    assert own_store.size().dead_letters == 0


def test_replica_that_was_behind_when_it_took_over_frees_no_client(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, settings: Any
) -> None:
    """What a failover does to a site: the address now leads to another server."""
    assert failure("alice", "192.0.2.1")
    drain()
    replica = Valkey()
    try:
        own_valkey.client.config_set("repl-diskless-sync-delay", "0")
        replica.client.replicaof("127.0.0.1", own_valkey.port)
        until(lambda: replica.client.info("replication")["master_link_status"] == "up", what="the replica follows")
        until(lambda: replica.client.dbsize() == own_valkey.client.dbsize(), what="the replica has everything")
        replica.lead()
        assert [failure("alice", "192.0.2.1") for _ in range(3)] == [True, True, False]
        drain()
        site = settings.CACHES["default"]
        settings.CACHES = {**settings.CACHES, "default": {**site, "LOCATION": f"{replica.url}/0"}}
        assert not failure("alice", "192.0.2.1")
        settle(drain, get_store())  # type: ignore[arg-type]
        assert not failure("alice", "192.0.2.1")
    finally:
        replica.stop()


def test_flush_after_a_reset_brings_no_lockout_back(own_valkey: Valkey, own_store: RedisStore, drain: Drain) -> None:
    lock("alice", "192.0.2.1")
    lock("bob", "192.0.2.2")
    drain()
    assert reset(ip="192.0.2.1") == 1
    own_valkey.client.flushall()
    assert failure("alice", "192.0.2.1")
    assert not failure("bob", "192.0.2.2")
    settle(drain, own_store)
    assert failure("alice", "192.0.2.1")
    assert not failure("bob", "192.0.2.2")


@pytest.mark.parametrize("who", [{}, {"ip": "192.0.2.1"}], ids=["of all", "of one"])
def test_reset_while_the_store_is_away_holds_when_it_is_back(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, who: dict[str, str]
) -> None:
    """What the store still holds of it, counters and events, counts nothing."""
    lock("alice", "192.0.2.1")
    drain()
    assert [failure("carol", "192.0.2.3") for _ in range(2)] == [True, True]
    own_valkey.freeze()
    reset(**who)
    assert failure("alice", "192.0.2.1")
    own_valkey.thaw()
    settle(drain, own_store)
    assert [failure("alice", "192.0.2.1") for _ in range(3)] == [True, True, False]
    assert failure("carol", "192.0.2.3")
    assert failure("carol", "192.0.2.3") is not bool(who), "a reset of one address takes back nothing from another"


def test_flush_between_two_portions_of_a_drain_doubles_nothing(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failure("alice", "192.0.2.1")
    drain()
    read = RedisStore.read

    def flushed_before(self: RedisStore, *args: Any) -> object:
        monkeypatch.setattr(RedisStore, "read", read)
        own_valkey.client.flushall()
        assert failure("bob", "192.0.2.2")
        assert failure("bob", "192.0.2.2")
        return read(self, *args)

    monkeypatch.setattr(RedisStore, "read", flushed_before)
    assert failure("alice", "192.0.2.1"), "its event goes with the flush"
    settle(drain, own_store)
    attempts = dict(AccessAttempt.objects.values_list("username", "failures_since_start"))
    assert attempts["bob"] == 2
    assert AccessFailureLog.objects.filter(username="bob").count() == 2
    assert own_store.size().dead_letters == 0


def test_syncs_under_load_lose_no_count(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted while the database decides is in the store afterwards, whenever the sync comes."""
    take_all_the_time(monkeypatch.setattr)
    # A reservation that is written into the store, and settled in the database, is there until its lease ends.
    settings.AXES_RESERVE_LEASE, settings.AXES_RESERVE_WAIT = 2, PATIENCE
    addresses = [f"192.0.2.{number}" for number in range(40)]
    for address in addresses:
        assert failure("alice", address)
    settle(drain, own_store)
    own_valkey.client.flushall()
    assert failure("mallory", "203.0.113.9")
    looked_at = dict.fromkeys(addresses, 1)

    def attack(part: int) -> None:
        try:
            for _ in range(3):
                for address in addresses[part::3]:
                    looked_at[address] += failure("alice", address)
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        attacks = [pool.submit(attack, part) for part in range(3)]
        while not all(one.done() for one in attacks):
            sync_store(own_store)
            drain()
        for one in attacks:
            one.result()
    assert set(looked_at.values()) == {3}
    settle(drain, own_store)
    rows = AttemptCounter.objects.filter(ip_address__in=addresses)
    assert set(rows.values_list("failures", flat=True)) == {3}
    assert AccessFailureLog.objects.filter(repeats=0, username="alice").count() == 120
    assert not any(failure("alice", address) for address in addresses)


def test_without_a_sync_an_empty_store_is_never_asked_for_a_decision(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    own_valkey.client.flushall()
    lock("alice", "192.0.2.1")
    assert own_valkey.client.xlen(own_store.outbox_key) == 0
    assert drain() >= 3
    assert AccessFailureLog.objects.filter(repeats=0).count() == 3


def test_first_logins_of_a_new_site_are_decided_by_its_empty_database(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    StoreState.objects.all().delete()
    own_valkey.client.flushall()
    forget()
    lock("alice", "192.0.2.1")
    settle(drain, own_store)
    assert not failure("alice", "192.0.2.1")
    assert failure("bob", "192.0.2.2")
