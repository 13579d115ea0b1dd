"""What the tests share: empty servers, a user, and a drain on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.db import connection
from django.test import Client
from django.utils import translation

from axes_async import heard
from axes_async.client import exemptions
from axes_async.ledger import database_name
from axes_async.login.state import _current
from axes_async.stores.contract import Store
from axes_async.stores.factory import get_failover, get_store
from axes_async.stores.redis.server import SCRIPTS, script
from axes_async.stores.redis.store import RedisStore
from tests import servers, system
from tests.site import CountingBackend
from tests.summary import pytest_terminal_summary  # noqa: F401  (a hook)
from tests.topologies import Cluster

PASSWORD = "correct horse battery staple"


WARMTH = "{axes}:warmth"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is to run on a MariaDB where there is none."""
    if django_settings.DATABASE == "mysql" and connection.vendor != "mysql":
        pytest.skip(system.NO_MARIADB)


@pytest.fixture(scope="session")
def _known_scripts() -> None:
    """Have the Valkey know our scripts: one that knows none is taken for a server that was restarted, and is cold."""
    with redis.Redis.from_url(servers.valkey_url()) as client:
        for name in SCRIPTS:
            client.script_load(script(name)[0])


@pytest.fixture(autouse=True)
def _empty_servers(_known_scripts: None) -> Iterator[None]:
    """Give each test a Valkey with no counter in it, complete for an empty table, and an empty local cache."""
    with redis.Redis.from_url(servers.valkey_url()) as client:
        client.flushall()
        client.set(WARMTH, f"warm:{database_name()}")
    caches["memory"].clear()
    if get_failover.cache_info().currsize:
        get_failover().heard = heard.Heard()
    CountingBackend.checks, CountingBackend.seconds = 0, 0.0
    exemptions._refusals.clear()
    _current.set(None)  # What a test did outside of any request is not to be the next one's.
    translation.deactivate()  # Django's own middleware leaves a thread in the language of its last request.
    yield
    CountingBackend.seconds = 0.0


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


@pytest.fixture(params=["redis", "memory", "rows"])
def any_store(request: pytest.FixtureRequest, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Have the counters on Valkey, in a local cache, or in the rows because the store is away; return which."""
    monkeypatch.setitem(current_app.conf, "task_always_eager", request.param == "memory")
    if request.param == "memory":
        settings.AXES_CACHE = "memory"
    if request.param != "rows":
        yield request.param
        return
    location = f"redis://127.0.0.1:{servers.free_port()}/0"
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": location}}
    settings.AXES_STORE_REST = 0.02
    monkeypatch.setattr(heard, "GRACE", 0)  # There is nobody else who could tell anything.
    failover = get_failover()
    yield request.param
    failover.is_away = False
    if failover._watcher is not None:
        failover._watcher.join(10)


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
