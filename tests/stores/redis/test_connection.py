"""The connections to the store: bounded, never trusted for long, and none survives a fork or an error."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis

from axes_async.counters.events import Kind
from axes_async.errors import StoreBusy, StoreUnavailable
from axes_async.stores.redis import connection as connections
from axes_async.stores.redis.connection import packed
from axes_async.stores.redis.server import LateClient, build_client
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from tests import servers
from tests.stores.places import NAMESPACE
from tests.stores.steps import Steps, Time
from tests.waiting import PATIENCE


def connection_of(store: RedisStore) -> Any:
    """Return the server's number of the connection that the store uses next."""
    return store.command("CLIENT", "ID")


@pytest.fixture
def small(plain: redis.Redis, lone: RedisStore) -> Iterator[RedisStore]:
    """Return a store on a client that may have one connection."""
    client = redis.Redis.from_url(servers.valkey_url(), max_connections=1)
    with closing(RedisStore(client, namespace=NAMESPACE)) as store:
        yield store


def test_one_connection_serves_one_thread(lone: RedisStore, time: Time) -> None:
    first = connection_of(lone)
    for token in "abc":
        Steps(lone, time).reserve(token)
        assert connection_of(lone) == first


def test_connection_that_was_closed_meanwhile_is_no_failure(lone: RedisStore, plain: redis.Redis, time: Time) -> None:
    steps = Steps(lone, time)
    steps.fail("a")
    plain.client_kill_filter(skipme=True)
    assert steps.fail("b").failures == (2,)


def test_one_broken_connection_takes_the_idle_ones_with_it(
    lone: RedisStore, plain: redis.Redis, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, barrier = Steps(lone, time, limit=0), threading.Barrier(4)

    def step() -> None:
        barrier.wait()
        plain.ping()
        steps.reserve("a")

    threads = [threading.Thread(target=step) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(lone.pool._free)
    plain.client_kill_filter(skipme=True)
    monkeypatch.setattr(connections, "_usable", lambda connection: True)  # As if it broke a moment later.
    with pytest.raises(StoreUnavailable):
        steps.fail("a")
    assert not any(lone.pool._free)
    assert steps.fail("b").failures == (1,)


def test_step_beyond_the_bound_waits_and_is_busy(
    small: RedisStore, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(small, time)
    steps.reserve("a")
    taken = small.pool._free.pop()
    monkeypatch.setattr(connections, "WAIT", 0.01)
    with pytest.raises(StoreBusy):
        steps.reserve("b")
    monkeypatch.setattr(connections, "WAIT", PATIENCE)
    threading.Timer(0.02, small.pool._give, [small.pool._free, taken]).start()
    steps.reserve("c")


def test_probe_needs_no_free_connection(small: RedisStore, time: Time) -> None:
    Steps(small, time).reserve("a")
    small.pool._free.pop()
    small.probe()


def test_reply_that_came_too_late_is_never_the_next_one(plain: redis.Redis, time: Time) -> None:
    server = servers.Valkey()
    with closing(RedisStore(build_client(server.url, {}, timeout=0.5), namespace=NAMESPACE)) as store:
        store.invalidate(1)
        store.complete(1, 0)
        steps = Steps(store, time)
        steps.fail("a")
        server.client.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
        with pytest.raises(StoreUnavailable):
            steps.fail("late")
        server.client.execute_command("CLIENT", "UNPAUSE")
        assert steps.store.peek([steps.counter("192.0.2.9")]).failures == (0,)
    server.stop()


def test_error_of_a_command_keeps_the_connection(lone: RedisStore) -> None:
    before = connection_of(lone)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            lone.command("INCR", lone.state_key)
    assert connection_of(lone) == before


def test_child_process_opens_connections_of_its_own(lone: RedisStore, time: Time) -> None:
    steps = Steps(lone, time)
    steps.fail("a")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writer, str(steps.fail("b").failures).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"(2,)"
    os.close(reader)
    os.close(writer)
    assert steps.fail("c").failures == (3,)


def test_client_that_cannot_be_made_yet_is_a_store_that_is_away(lone: RedisStore, time: Time) -> None:
    is_there = False

    def make() -> Any:
        if not is_there:
            raise redis.ConnectionError("not yet")
        return redis.Redis.from_url(servers.valkey_url())

    with closing(RedisStore(LateClient(make), namespace=NAMESPACE)) as store:
        steps = Steps(store, time)
        for step in (store.probe, lambda: steps.fail("a")):
            with pytest.raises(StoreUnavailable):
                step()
        is_there = True
        store.probe()
        assert steps.fail("a").failures == (1,)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("pool", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_client_of_any_kind_is_used(lone: RedisStore, time: Time, protocol: int, pool: type[Any]) -> None:
    options = {"protocol": protocol, "decode_responses": True, "retry_on_timeout": True, "health_check_interval": 1}
    client = redis.Redis(connection_pool=pool.from_url(servers.valkey_url(), **options))
    with closing(RedisStore(client, namespace=NAMESPACE)) as store:
        steps = Steps(store, time)
        assert steps.fail("a").failures == (1,)
        ((_, event),) = store.read(store.key().last.__class__(), 10)
        assert getattr(event, "kind", None) is Kind.FAILED
        assert (store.eviction(), store.size().events) == ("noeviction", 1)
        store.set_aside(b"\xff", "no event")
        (letter,) = store.dead_letters("0-0", 10)
        assert letter.entry == b"\xff"


def test_client_is_not_asked_to_retry(time: Time) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        client = redis.Redis.from_url(url, socket_timeout=0.05, socket_connect_timeout=0.05)
        with closing(RedisStore(client)) as store, pytest.raises(StoreUnavailable):
            store.probe()
        silent.settimeout(PATIENCE)
        silent.accept()[0].close()
        silent.setblocking(False)  # Whoever has connected is in its queue by now.
        with pytest.raises(BlockingIOError):
            silent.accept()


@pytest.mark.parametrize("scheme", ["valkey", "redis"])
def test_url_may_name_valkey(lone: RedisStore, time: Time, scheme: str) -> None:
    client = build_client(servers.valkey_url().replace("redis", scheme, 1), {}, timeout=PATIENCE)
    with closing(RedisStore(client, namespace=NAMESPACE)) as store:
        assert Steps(store, time).fail("a").failures == (1,)


def test_server_on_a_socket_is_used(time: Time, tmp_path: Any) -> None:
    server = servers.Valkey(unixsocket=str(tmp_path / "valkey"))
    with closing(RedisStore(build_client(f"unix://{tmp_path}/valkey", {}, timeout=PATIENCE))) as store:
        store.invalidate(1)
        assert store.complete(1, 0)
        assert Steps(store, time).fail("a").failures == (1,)
    server.stop()


def test_texts_are_packed_as_the_protocol_has_them() -> None:
    assert (
        packed(("SET", "k", 1, b"\xff", "é"))
        == b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n1\r\n$1\r\n\xff\r\n$2\r\n\xc3\xa9\r\n"
    )


def test_names_that_are_not_ascii_are_told_in_full(lone: RedisStore, time: Time) -> None:
    steps = Steps(lone, time)
    event = steps.event(Kind.FAILED)
    object.__setattr__(event, "username", 'Zoë 名前 \N{PILE OF POO} |:" ')
    lone.do(Step(StepKind.FAIL, "a", [steps.counter()], event=event))
    assert steps.events()[0].username == event.username
