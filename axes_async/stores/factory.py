"""The store that the settings ask for, built when first needed and kept while settings and database stay the same."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from inspect import iscoroutinefunction
from threading import RLock
from typing import Any

from django.conf import settings as django_settings
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import connections

from axes_async.conf import AxesSettings, get_settings
from axes_async.stores.cache import CacheStore
from axes_async.stores.contract import Store
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.server import FAULTS, LateClient, build_client
from axes_async.stores.redis.store import RedisStore

log = logging.getLogger(__name__)

CLIENT_OPTIONS = (
    *("username", "password", "credential_provider", "db", "ssl_cert_reqs", "ssl_check_hostname"),
    *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password"),
)
"""``OPTIONS`` of a Redis cache that our own client takes over, in Django's spelling or django-redis' capitals.

django-redis has them in ``CONNECTION_POOL_KWARGS`` there, too.
"""

_names: dict[str, object] = {}
"""The ``NAME`` of each database when the apps were ready."""


def get_store() -> Store:
    """Return the store that the settings name; in a site's tests, the one that ``AXES_TEST_STORE`` does.

    Raises ``ImproperlyConfigured`` if there is no such cache, or if a Redis cache names no server.
    """
    return get_failover().primary


def get_failover() -> FailoverStore:
    """Return the store for logins: that of ``get_store``, and what decides while it cannot."""
    return _stores.current()


def note_databases() -> None:
    """Note the names that the databases have outside of a test run; called when the apps are ready.

    The first names count: apps get ready again in a test run where a test changes ``INSTALLED_APPS``.
    """
    for alias in connections.settings:
        _names.setdefault(alias, _name(alias))


def is_test_run() -> bool:
    """Return whether this process runs a site's tests: Django has set up for them, or has replaced our database."""
    return _tests_are_set_up() or _name(_alias()) != _names.get(_alias(), _name(_alias()))


def is_eager() -> bool:
    """Return whether the store is that of a site's tests, where rows are written at once, in the test's transaction."""
    return get_settings().test_store == "database" and is_test_run()


def database_name() -> str:
    """Return a short name for the database of our rows, the same in every process that uses it."""
    options = connections.settings[_alias()]
    parts = [str(options.get(name) or "") for name in ("ENGINE", "HOST", "PORT", "NAME")]
    return sha256("\0".join(parts).encode()).hexdigest()[:12]


def forget() -> None:
    """Close the stores; the next call builds new ones."""
    _stores.forget()


@dataclass(frozen=True, slots=True)
class _Built:
    """The stores, and what they were built for: other settings, or another database or test run, need others."""

    alias: str
    made_for: tuple[object, ...]
    failover: FailoverStore


class _Stores:
    def __init__(self) -> None:
        self._built: _Built | None = None
        self._lock = RLock()

    def current(self) -> FailoverStore:
        """Return the stores for the settings and the database of now."""
        built = self._built
        if built is not None and built.made_for == _made_for(built.alias):
            return built.failover
        with self._lock:
            alias = _alias()
            if self._built is None or self._built.made_for != _made_for(alias):
                self.forget()
                self._built = _Built(alias, _made_for(alias), _failover(get_settings()))
            return self._built.failover

    def forget(self) -> None:
        with self._lock:
            if self._built is not None:
                self._built.failover.close()
            self._built = None

    def start_over(self) -> None:
        """Forget the stores of the process that this one was forked from: they are open there."""
        self._built, self._lock = None, RLock()


_stores = _Stores()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stores.start_over)


def _made_for(alias: str) -> tuple[object, ...]:
    return get_settings(), _name(alias), _tests_are_set_up()


def _failover(settings: AxesSettings) -> FailoverStore:
    from axes_async.stores.database.store import DatabaseStore

    store, fallback = _store(settings), None
    is_database = isinstance(store, DatabaseStore)
    if settings.on_store_failure == "database" and not is_database:
        fallback = DatabaseStore(replaces=store if isinstance(store, RedisStore) else None)
    return FailoverStore(
        store,
        fallback,
        on_failure=settings.on_store_failure,
        retry_interval=settings.store_retry_interval,
        probes=not is_database,
    )


def _store(settings: AxesSettings) -> Store:
    if settings.store == "database" or is_eager():
        from axes_async.stores.database.store import DatabaseStore

        return DatabaseStore(standalone=True, nudge_always=is_eager())
    config = django_settings.CACHES.get(settings.cache)
    if config is None:
        raise ImproperlyConfigured(f"AXES_CACHE is {settings.cache!r}; CACHES has {', '.join(django_settings.CACHES)}.")
    if settings.redis_client is None and not is_redis(config):
        shared = not isinstance(caches[settings.cache], LocMemCache)
        return CacheStore(lambda: caches[settings.cache], shared=shared, namespace=f"axes:{database_name()}")
    prefix = config.get("KEY_PREFIX")
    namespace = f"axes:{prefix}:{database_name()}" if prefix else f"axes:{database_name()}"
    client = _client(settings, config) if settings.redis_client is None else _given(settings.redis_client)
    return RedisStore(
        client, namespace=namespace, outbox_max=settings.outbox_max, outbox_max_bytes=settings.outbox_max_bytes
    )


def _client(settings: AxesSettings, config: Mapping[str, Any]) -> Any:
    url = primary_of(settings.cache, config)
    try:
        return build_client(url, _options(config), timeout=settings.store_timeout)
    except (ValueError, TypeError) as error:
        raise ImproperlyConfigured(f"CACHES[{settings.cache!r}] cannot be used as the store: {error}") from error


def _given(make: Callable[..., Any]) -> Any:
    """Return the client of ``AXES_REDIS_CLIENT``: one for a cluster connects at once, and the cluster may be away."""
    try:
        return _checked(make())
    except FAULTS as error:
        log.error("AXES_REDIS_CLIENT cannot connect yet (%s).", error)
        return LateClient(lambda: _checked(make()))


def _checked(client: Any) -> Any:
    """Return what ``AXES_REDIS_CLIENT`` has returned; raises ``ImproperlyConfigured`` if it cannot be used."""
    execute = getattr(client, "execute_command", None)
    if execute is None or isinstance(client, type) or iscoroutinefunction(execute):
        takes = "a callable that returns a redis-py client, and none of redis.asyncio"
        raise ImproperlyConfigured(f"AXES_REDIS_CLIENT returned {client!r}; it takes {takes}.")
    return client


def is_redis(config: Mapping[str, Any]) -> bool:
    """Return whether an entry of ``CACHES`` is backed by Redis or Valkey: Django's own backend, or one named so."""
    backend = config.get("BACKEND", "").lower()
    return "redis" in backend or "valkey" in backend


def primary_of(alias: str, config: Mapping[str, Any]) -> str:
    """Return the URL of the server that takes writes: the first of ``LOCATION``, as in Django's Redis cache."""
    location = config.get("LOCATION") or ()
    urls = location.replace(";", ",").split(",") if isinstance(location, str) else list(location)
    if not urls or not str(urls[0]).strip():
        raise ImproperlyConfigured(f"CACHES[{alias!r}] has no LOCATION; it takes the URL of a Redis or Valkey server.")
    return str(urls[0]).strip()


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    given = {str(name).lower(): value for name, value in (config.get("OPTIONS") or {}).items()}
    given |= given.get("connection_pool_kwargs") or {}
    return {name: given[name] for name in CLIENT_OPTIONS if name in given}


def _alias() -> str:
    from axes_async.models import database

    return database()


def _name(alias: str) -> object:
    return connections.settings[alias].get("NAME")


def _tests_are_set_up() -> bool:
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting in {"CACHES", "DATABASES", "DATABASE_ROUTERS"} or setting.startswith("AXES_"):
        forget()


setting_changed.connect(_forget, dispatch_uid="axes_async.store")
