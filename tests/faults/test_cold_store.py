"""The store was flushed, replaced, or comes back with less than it had: nobody is freed by that, or locked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from axes_async.heard import Heard
from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter
from axes_async.stores.factory import get_failover
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks import drain as drain_module
from axes_async.tasks.rebuild import rebuild
from axes_async.tasks.reset import reset
from tests.actions import failure
from tests.faults.machines import Valkey, until

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[[], int]


def lock(username: str, address: str) -> None:
    assert [failure(username, address) for _ in range(4)] == [True, True, True, False]


def test_after_a_flush_under_load_no_locked_client_gets_a_guess_through(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "LONGEST", 0.0)  # One batch at a time, or it would never end under this load.
    locked = [f"192.0.2.{number}" for number in range(4)]
    for address in locked:
        lock("alice", address)
    drain()
    done, through = threading.Event(), []

    def attack(number: int) -> int:
        tries = 0
        try:
            while not done.is_set():
                if failure("alice", locked[number % len(locked)]):
                    through.append(number)
                failure("bob", f"198.51.{number}.{tries % 250}")
                tries += 1
                time.sleep(0.002)
            return tries
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        attacks = [pool.submit(attack, number) for number in range(4)]
        try:
            for _ in range(15):
                own_valkey.client.flushall()
                until(lambda: own_valkey.client.dbsize() > 8, what="the attack goes on")
                drain()
                until(lambda: own_valkey.client.dbsize() > 8, what="the attack goes on")
        finally:
            done.set()
        assert all(one.result() > 10 for one in attacks)
    assert not through


def test_a_rebuild_under_load_undoes_nothing_that_has_happened_meanwhile(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    addresses = [f"192.0.2.{number}" for number in range(60)]
    for address in addresses:
        assert failure("alice", address)
    drain()
    own_valkey.client.flushall()
    looked_at: dict[str, int] = dict.fromkeys(addresses, 1)

    def attack(part: int) -> None:
        try:
            for _ in range(3):
                for address in addresses[part::3]:
                    looked_at[address] += failure("alice", address)
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        attacks = [pool.submit(attack, part) for part in range(3)]
        for _ in range(3):
            rebuild()
            drain()
        for one in attacks:
            one.result()
    assert set(looked_at.values()) == {3}
    until(lambda: drain() == 0 and not own_store.is_cold(), what="drained and warm")
    assert {row.failures - row.lifted for row in AttemptCounter.objects.all()} == {3}
    assert AccessFailureLog.objects.filter(repeats=0).count() == 180
    assert not any(failure("alice", address) for address in addresses)


def test_a_store_that_is_killed_and_replaced_by_an_empty_one_is_cold_until_it_is_rebuilt(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    lock("alice", "192.0.2.1")
    drain()
    own_valkey.kill()
    own_valkey.replace()
    assert own_store.is_cold()
    assert not failure("alice", "192.0.2.1")
    drain()
    assert not own_store.is_cold()
    assert not failure("alice", "192.0.2.1")
    assert failure("alice", "192.0.2.2")


def test_with_an_empty_table_the_first_attempt_makes_the_store_warm_without_a_worker(
    own_valkey: Valkey, own_store: RedisStore
) -> None:
    own_valkey.client.flushall()
    assert own_store.is_cold()
    assert failure("alice", "192.0.2.1")
    assert not own_store.is_cold()


def test_a_flush_after_a_reset_brings_no_lockout_back(own_valkey: Valkey, own_store: RedisStore, drain: Drain) -> None:
    lock("alice", "192.0.2.1")
    lock("bob", "192.0.2.2")
    drain()
    assert reset(ip="192.0.2.1") == 1
    own_valkey.client.flushall()
    assert failure("alice", "192.0.2.1")
    assert not failure("bob", "192.0.2.2")
    drain()
    assert failure("alice", "192.0.2.1")
    assert not failure("bob", "192.0.2.2")


def test_a_flush_between_the_drains_look_at_the_outbox_and_its_read_doubles_nothing(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failure("alice", "192.0.2.1")
    drain()
    read = RedisStore.read

    def flushed_before(self: RedisStore, after: str, count: int) -> object:
        monkeypatch.setattr(RedisStore, "read", read)
        monkeypatch.setattr(get_failover(), "heard", Heard())  # Another process, that has nothing to tell first.
        own_valkey.client.flushall()
        assert failure("bob", "192.0.2.2")
        assert failure("bob", "192.0.2.2")
        return read(self, after, count)

    monkeypatch.setattr(RedisStore, "read", flushed_before)
    failure("alice", "192.0.2.1")  # Gone with the flush; what counts is what comes after it.
    drain()
    drain()
    attempts = AccessAttempt.objects.values_list("username", "failures_since_start")
    assert dict(attempts)["bob"] == 2
    assert AccessFailureLog.objects.filter(username="bob").count() == 2
    assert own_store.client.xlen(own_store.dead_letters_key) == 0


def stale_server(own_valkey: Valkey) -> None:
    """Kill the server, and have it come back as it was when it was last saved."""
    own_valkey.kill()
    own_valkey.start()


def test_an_old_snapshot_frees_no_client_that_was_locked_since(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    assert failure("alice", "192.0.2.1")
    drain()
    own_valkey.client.save()
    assert [failure("alice", "192.0.2.1") for _ in range(3)] == [True, True, False]
    drain()
    stale_server(own_valkey)
    assert not failure("alice", "192.0.2.1")
    drain()
    assert not failure("alice", "192.0.2.1")


def test_a_replica_that_was_behind_when_it_took_over_frees_no_client(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, settings: Any
) -> None:
    """What a failover does to a site: the address now leads to another server, that knows no script of ours."""
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
        drain()
        assert not failure("alice", "192.0.2.1")
    finally:
        replica.stop()


def test_events_of_an_old_snapshot_that_are_written_already_are_not_written_again(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    for number in range(5):
        failure(f"before{number}", f"192.0.2.{number}")
    own_valkey.client.save()
    for number in range(5):
        failure(f"after{number}", f"198.51.100.{number}")
    assert drain() == 10
    stale_server(own_valkey)
    assert own_valkey.client.xlen(own_store.outbox_key) == 5
    drain()
    failure("new", "203.0.113.1")
    drain()
    names = list(AccessFailureLog.objects.order_by("id").values_list("username", flat=True))
    assert names == [f"before{n}" for n in range(5)] + [f"after{n}" for n in range(5)] + ["new"]
    assert set(AccessAttempt.objects.values_list("failures_since_start", flat=True)) == {1}
    assert own_store.client.xlen(own_store.dead_letters_key) == 0


def test_a_new_server_whose_positions_are_lower_is_drained_from_its_beginning_once(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    """Its clock is behind: what it names its events comes before all that was written."""
    failure("old", "192.0.2.1")
    drain()
    own_valkey.client.flushall()
    for number in range(3):
        failure(f"new{number}", f"198.51.100.{number}")
    lower_positions(own_valkey, own_store, start=1000)
    assert drain() == 3
    assert drain() == 0
    assert own_valkey.client.xlen(own_store.outbox_key) == 0
    failure("new3", "198.51.100.3")
    drain()
    names = list(AccessFailureLog.objects.order_by("id").values_list("username", flat=True))
    assert names == ["old", "new0", "new1", "new2", "new3"]


def lower_positions(own_valkey: Valkey, store: RedisStore, *, start: int) -> None:
    """Give the events in the outbox the positions that a server with such a clock gives."""
    entries = own_valkey.client.xrange(store.outbox_key)
    own_valkey.client.delete(store.outbox_key)
    for number, (_, fields) in enumerate(entries):
        own_valkey.client.xadd(store.outbox_key, fields, id=f"{start + number}-0")
