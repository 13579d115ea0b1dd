"""A server that was restarted, restored, promoted, flushed, filled or upgraded is noticed before it is trusted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from axes_async.counters.state import CounterState
from axes_async.errors import StoreIncomplete, StoreUnavailable
from axes_async.stores.contract import Position, SavedCounter, StoreKey
from axes_async.stores.redis.library import library
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import Verdict
from tests import servers
from tests.stores.places import NAMESPACE, completed
from tests.stores.steps import Steps, Time


@pytest.fixture
def server() -> Iterator[servers.Valkey]:
    """Return a Valkey that a test may break."""
    valkey = servers.Valkey()
    yield valkey
    valkey.stop()


@pytest.fixture
def store(server: servers.Valkey) -> Iterator[RedisStore]:
    """Return the store on it, complete."""
    with closing(completed(RedisStore(build_client(server.url, {}, timeout=10), namespace=NAMESPACE))) as store:
        yield store


@pytest.fixture
def steps(store: RedisStore, time: Time) -> Steps:
    return Steps(store, time)


def test_new_server_is_given_the_functions(unknown: RedisStore, plain: redis.Redis) -> None:
    plain.function_flush()
    assert unknown.key() == StoreKey()
    (known,) = plain.function_list()
    assert known[1] + "_" == library().prefix


def test_rights_that_the_docs_name_are_enough(server: servers.Valkey, time: Time) -> None:
    docs = Path(__file__).resolve().parents[3] / "docs" / "settings.md"
    (rights,) = re.findall("^ACL SETUSER axes on >password (.+)$", docs.read_text(encoding="utf-8"), re.MULTILINE)
    server.client.execute_command("ACL", "SETUSER", "axes", "on", ">password", *rights.split())
    client = build_client(server.url, {"username": "axes", "password": "password"}, timeout=10)
    with closing(completed(RedisStore(client, namespace=NAMESPACE))) as store:
        steps = Steps(store, time)
        counter = steps.counter()
        steps.reserve("a", counter)
        assert steps.fail("a", counter).failures == (1,)
        steps.succeed("b", counter, clear=[counter])
        assert len(store.look([counter])) == 1
        events = store.read(Position(), 10)
        store.set_aside(b"no event", "no event")
        assert (len(events), store.size().dead_letters, store.eviction()) == (2, 1, "noeviction")
        store.trim(events[-1][0])
        assert store.rearm(events[-1][0], pause=0)
        saved = SavedCounter(digest=counter.digest, state=CounterState(failures=2))
        assert store.push(store.key().generation, events[-1][0], [saved]) == "ok"


def test_server_that_has_forgotten_the_functions_is_given_them_again(steps: Steps, server: servers.Valkey) -> None:
    steps.fail("a")
    server.client.function_flush()
    assert steps.fail("b").failures == (2,)


def test_two_versions_of_the_library_work_side_by_side(
    steps: Steps, store: RedisStore, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = library()
    name = "axes_0123456789ab"
    theirs = ours._replace(prefix=f"{name}_", source=ours.source.replace(ours.prefix[:-1], name))
    other = RedisStore(store.client, namespace=NAMESPACE)
    steps.fail("a")
    for module in ("store", "server"):
        monkeypatch.setattr(f"axes_async.stores.redis.{module}.library", lambda: theirs)
    Steps(other, time).fail("b")
    monkeypatch.undo()
    monkeypatch.setattr("axes_async.clock.fixed_ms", time)
    assert steps.fail("c").failures == (3,)
    other.close()


def test_server_that_comes_back_from_a_snapshot_is_lost(
    steps: Steps, server: servers.Valkey, store: RedisStore
) -> None:
    steps.fail("a")
    server.client.save()
    steps.fail("b")
    server.kill()
    server.start()
    with pytest.raises(StoreIncomplete):
        steps.reserve("d")
    assert store.key() == StoreKey("lost", 1, 0, Position(1, 0))
    assert store.invalidate(2).status == "lost"
    assert store.complete(2, 0)
    assert steps.failures() == [0]


def test_server_that_comes_back_empty_knows_nothing(steps: Steps, server: servers.Valkey, store: RedisStore) -> None:
    steps.fail("a")
    server.kill()
    server.start()
    with pytest.raises(StoreIncomplete):
        steps.fail("b")
    assert store.key() == StoreKey()


def test_restart_in_the_middle_of_a_sync_ends_it(steps: Steps, server: servers.Valkey, store: RedisStore) -> None:
    counter = steps.counter()
    for token in "abc":
        steps.fail(token)
    assert store.invalidate(2).status == "stale"
    server.client.save()
    server.kill()
    server.start()
    some = [SavedCounter(digest=counter.digest, state=CounterState(failures=3, since=1))]
    assert not store.load(2, some), "what was loaded before may be gone"
    assert not store.complete(2, 0)
    assert store.invalidate(3) == StoreKey("lost", 3, 0, Position(1, 2))
    assert store.load(3, some)
    assert store.complete(3, 0)
    assert steps.reserve("d").verdict is Verdict.LOCKED


def test_every_new_connection_looks_at_the_server(steps: Steps, server: servers.Valkey, store: RedisStore) -> None:
    steps.fail("a")
    key = server.client.get(store.state_key)
    server.client.set(store.state_key, " ".join([*str(key).split()[:3], "f" * 40]))
    assert steps.fail("b").failures == (2,), "an open connection is one to the same server"
    store.close()
    with pytest.raises(StoreIncomplete):
        steps.fail("c")
    assert store.key().status == "lost"


def test_probe_opens_a_connection_of_its_own_and_writes(store: RedisStore, server: servers.Valkey) -> None:
    before = int(server.client.info("stats")["total_connections_received"])
    store.probe()
    assert int(server.client.info("stats")["total_connections_received"]) == before + 1
    server.client.replicaof("127.0.0.1", 1)
    with pytest.raises(StoreUnavailable):
        store.probe()


def test_full_server_changes_nothing_and_can_still_be_drained(
    steps: Steps, server: servers.Valkey, store: RedisStore
) -> None:
    steps.reserve("a")
    steps.fail("b")
    server.client.config_set("maxmemory", 1)
    for step in (steps.fail, steps.reserve):
        with pytest.raises(StoreUnavailable):
            step("c")
    assert steps.failures() == [1]
    store.release("a", [steps.counter()])
    assert len(store.read(Position(), 10)) == 1
    store.trim(store.key().last)
    assert store.rearm(store.key().last)
    assert store.invalidate(2).status == "stale"
    server.client.config_set("maxmemory", 0)
    assert store.size().events == 0


def test_read_only_server_is_one_that_cannot_be_used(steps: Steps, server: servers.Valkey) -> None:
    steps.fail("a")
    server.client.replicaof("127.0.0.1", 1)
    with pytest.raises(StoreUnavailable):
        steps.fail("b")
    server.client.replicaof("no", "one")
    assert steps.fail("c").failures == (2,)


def test_eviction_policy_is_told(store: RedisStore, server: servers.Valkey) -> None:
    assert store.eviction() == "noeviction"
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    assert store.eviction() == "allkeys-lru"
