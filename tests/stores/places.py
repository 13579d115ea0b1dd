"""Where counters may be: each opens a store that is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.core.management import call_command

from axes_async.stores.cache import CacheStore
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from tests import servers
from tests.waiting import PATIENCE

Request = pytest.FixtureRequest

NAMESPACE = "axes:test of a store"


def completed(store: RedisStore) -> RedisStore:
    """Have a store that knows nothing be complete in generation 1."""
    store.invalidate(1)
    assert store.complete(1, 0)
    return store


@contextmanager
def on_valkey(request: Request) -> Iterator[RedisStore]:
    request.getfixturevalue("plain")
    client = build_client(servers.valkey_url(), {}, timeout=PATIENCE)
    with closing(completed(RedisStore(client, namespace=NAMESPACE))) as store:
        yield store


@contextmanager
def on_valkey_by_a_client_of_the_site(request: Request) -> Iterator[RedisStore]:
    request.getfixturevalue("plain")
    client = redis.Redis.from_url(servers.valkey_url(), decode_responses=True, max_connections=200)
    with closing(completed(RedisStore(client, namespace=NAMESPACE))) as store:
        yield store


@contextmanager
def on_a_cluster(request: Request) -> Iterator[RedisStore]:
    cluster = request.getfixturevalue("cluster")
    cluster.empty()
    with closing(cluster.client()) as client, closing(completed(RedisStore(client, namespace=NAMESPACE))) as store:
        yield store


@contextmanager
def in_a_cache(request: Request, alias: str) -> Iterator[CacheStore]:
    if alias == "memcached":
        request.getfixturevalue("memcached")
    if alias == "table":
        call_command("createcachetable", verbosity=0)
    caches[alias].clear()
    yield CacheStore(lambda: caches[alias], shared=alias != "memory")


@contextmanager
def in_the_database(request: Request) -> Iterator[DatabaseStore]:
    yield DatabaseStore(standalone=True)


@contextmanager
def behind_failover(request: Request, what: str) -> Iterator[FailoverStore]:
    request.getfixturevalue("plain")
    port = servers.Port()
    url = f"redis://{servers.HOST}:{port.number}" if what == "away" else servers.valkey_url()
    primary = RedisStore(build_client(url, {}, timeout=PATIENCE), namespace=NAMESPACE)
    if what == "there":
        completed(primary)
    with closing(FailoverStore(primary, DatabaseStore(replaces=primary), retry_interval=60)) as store:
        yield store
    port.close()


@dataclass(frozen=True)
class Place:
    """Where counters may be."""

    name: str
    open: Callable[[Request], Any]
    marks: tuple[pytest.MarkDecorator, ...] = ()


ROWS = (pytest.mark.django_db, pytest.mark.database)

PLACES = (
    Place("Valkey", on_valkey),
    Place("Valkey, by a client of the site's", on_valkey_by_a_client_of_the_site),
    Place("a cluster", on_a_cluster),
    Place("memory", lambda request: in_a_cache(request, "memory")),
    Place("a cache table", lambda request: in_a_cache(request, "table"), marks=(pytest.mark.django_db,)),
    Place("Memcached", lambda request: in_a_cache(request, "memcached")),
    Place("the database", in_the_database, marks=ROWS),
    Place("failover", lambda request: behind_failover(request, "there"), marks=ROWS),
    Place("failover, store away", lambda request: behind_failover(request, "away"), marks=ROWS),
    Place("failover, store incomplete", lambda request: behind_failover(request, "incomplete"), marks=ROWS),
)
