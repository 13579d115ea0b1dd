"""What the tests share: empty servers, a user, and a drain on demand."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import current_app
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.management.commands import flush
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client
from django.utils import translation
from hypothesis import settings as hypothesis_settings

from axes_async import clock
from axes_async.client import exemptions
from axes_async.delivery import publisher, silence
from axes_async.login import renewal, rules_in_force, state, unsettled
from axes_async.login.attempt import latest
from axes_async.models import StoreState
from axes_async.stores import factory
from axes_async.stores.contract import OutboxStore, Store
from axes_async.stores.factory import get_store
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks import drain as drain_module
from tests import servers, system
from tests.site import CountingBackend
from tests.summary import (  # noqa: F401  (hooks)
    pytest_collection_modifyitems,
    pytest_ignore_collect,
    pytest_terminal_summary,
)

if TYPE_CHECKING:
    from tests.topologies import Cluster

PASSWORD = "correct horse battery staple"

KEPT = {"auth_permission", "django_content_type"}

REFUSED = "redis://127.0.0.1:1/0"
"""A place where nobody listens."""

PATIENT = 10.0
"""Seconds to wait for a broker where its silence is not the point: a busy machine is slow."""


hypothesis_settings.register_profile("unhurried", deadline=None)
hypothesis_settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """Have the garbage collector leave alone what stays for good: thousands of tests and all modules."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is to run on a MariaDB where there is none."""
    if django_settings.DATABASE == "mysql" and connection.vendor != "mysql":
        pytest.skip(system.NO_MARIADB)


def complete(store: Store, generation: int = 1) -> None:
    """Have a store that knows nothing of our database decide, as after a sync of an empty table."""
    if isinstance(store, OutboxStore):
        store.invalidate(generation)
        store.complete(generation, 0)
        store.generation = generation


@cache
def plain_client() -> redis.Redis:
    """Return the client that empties the Valkey; to connect takes longer than most tests."""
    return redis.Redis.from_url(servers.valkey_url())


@cache
def complete_key() -> tuple[str, bytes]:
    """Return the key of a store that is complete for an empty table, and what it says."""
    store = get_store()
    assert isinstance(store, RedisStore)
    complete(store)
    told = plain_client().get(store.state_key)
    assert isinstance(told, bytes)
    factory.forget()
    return store.state_key, told


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a Valkey with no counter in it that is complete for an empty table, and the clock of this host."""
    if request.node.get_closest_marker("django_db") or {"db", "transactional_db"} & {*request.fixturenames}:
        request.getfixturevalue("_django_db_helper")
        if not StoreState.objects.filter(pk=1).update(generation=1, mode=StoreState.STORE):
            StoreState.objects.create(pk=1, generation=1, mode=StoreState.STORE)
    monkeypatch.setattr(clock, "fixed_ms", clock.now_ms)
    key, told = complete_key()
    with plain_client().pipeline(transaction=False) as pipeline:
        pipeline.flushall().set(key, told).execute()
    caches["memory"].clear()
    CountingBackend.checks, CountingBackend.seconds = 0, 0.0
    exemptions._refusals.clear()
    monkeypatch.setattr(publisher, "PUBLISH_TIMEOUT", PATIENT)
    for breaker in (publisher._broker, publisher._syncs, drain_module._database):
        breaker.succeeded()
    silence.breakers.clear()
    state.current.set(None)  # What a test did outside of any request is not to be the next one's.
    latest.set(None)
    rules_in_force.tell_of_no_request.cache_clear()
    rules_in_force.tell_of_no_address.cache_clear()
    translation.deactivate()  # Django's own middleware leaves a thread in the language of its last request.
    yield
    monkeypatch.setattr(unsettled, "SECONDS", 0)  # What waits is given up, and nothing of it reaches the next test.
    if (thread := unsettled._backlog._thread) is not None:
        thread.join()
    for held in [*renewal._backlog._waiting]:
        if (attempt := held.attempt()) is not None:
            attempt.settled = True  # What a test leaves open is not renewed in the next one's store.
    CountingBackend.seconds = 0.0
    factory.forget()


@pytest.fixture
def valkey() -> Iterator[redis.Redis]:
    """Return a plain client of the server that holds the counters."""
    with redis.Redis.from_url(servers.valkey_url(), decode_responses=True) as client:
        yield client


@pytest.fixture
def store() -> Store:
    """Return the store of the test site."""
    return get_store()


@pytest.fixture
def redis_store() -> RedisStore:
    """Return the store of the test site, which is on Valkey."""
    store = get_store()
    assert isinstance(store, RedisStore)
    return store


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Return a cluster of two nodes, with whatever the test before has left on it."""
    from tests.topologies import Cluster

    topology = Cluster()
    yield topology
    topology.stop()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Return a port that refuses connections, and that no other program can take meanwhile."""
    port = servers.Port()
    yield port.number
    port.close()


@pytest.fixture
def memcached(settings: Any) -> Iterator[BaseCache]:
    """Return the cache ``memcached`` on a server of this test process, empty."""
    entry = system.memcached()
    if entry is None:
        pytest.skip(system.NO_MEMCACHED)
    settings.CACHES = {**settings.CACHES, "memcached": entry}
    cache: BaseCache = caches["memcached"]
    cache.clear()
    yield cache
    caches["memcached"].close()
    cache.close()


@pytest.fixture
def alice(db: None) -> User:
    """Return a user whose password is ``PASSWORD``."""
    return User.objects.create_user("alice", password=PASSWORD)


@pytest.fixture
def post(client: Client) -> Callable[..., Any]:
    """Return a function that tries a password at a URL of the test site."""

    def post(username: Any = "alice", password: Any = "wrong", *, url: str = "/sign-in/", **extra: Any) -> Any:
        return client.post(url, {"username": username, "password": password}, **extra)

    return post


@pytest.fixture
def drain() -> Callable[[], int]:
    """Return the drain, to be run in this process: what a worker would do, when the test wants it."""
    from axes_async.tasks.drain import drain

    return drain


@pytest.fixture(params=["redis", "memory", "database", "away"])
def any_store(request: pytest.FixtureRequest, settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the counters on Valkey, in a local cache, in the database, or there because the store is away."""
    which: str = request.param
    monkeypatch.setitem(current_app.conf, "task_always_eager", which == "memory")
    if which == "memory":
        settings.AXES_CACHE = "memory"
    elif which == "database":
        settings.AXES_STORE = "database"
    elif which == "away":
        settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": REFUSED}}
    return which


@pytest.fixture(scope="session", autouse=True)
def _nobody_left(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """End sessions of processes that tests have killed: a database that somebody is connected to cannot be dropped."""
    yield
    if connection.vendor == "postgresql":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@pytest.fixture(scope="session", autouse=True)
def _flush_is_quick() -> Iterator[None]:
    """Empty only the tables that have rows; content types and permissions stay, which take longest to make again."""

    def sql_flush(style: Any, of: BaseDatabaseWrapper, **options: Any) -> list[str]:
        tables = set(of.introspection.django_table_names(only_existing=True, include_views=False)) - KEPT
        with of.cursor() as cursor:
            found = (f"EXISTS (SELECT 1 FROM {of.ops.quote_name(table)})" for table in tables)  # noqa: S608
            cursor.execute(f"SELECT {', '.join(found)}")
            filled = [table for table, is_filled in zip(tables, cursor.fetchone(), strict=True) if is_filled]
        # PostgreSQL empties no table that others refer to, unless those are emptied with it.
        return of.ops.sql_flush(style, filled, **{**options, "allow_cascade": of.vendor == "postgresql"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush, "sql_flush", sql_flush)
        patch.setattr(flush, "emit_post_migrate_signal", lambda *args: None)
        yield
