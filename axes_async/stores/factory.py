"""The store that the settings ask for, built when first needed and kept for the life of the process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache
from inspect import iscoroutinefunction
from typing import Any

from django.conf import settings as django_settings
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from axes_async.conf import AxesSettings, get_settings
from axes_async.ledger import Ledger, database_name
from axes_async.stores.cache import CacheStore
from axes_async.stores.contract import Store
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.server import FAULTS, LateClient, build_client
from axes_async.stores.redis.store import RedisStore

log = logging.getLogger(__name__)

CLIENT_OPTIONS = ("username", "password", "db", "ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""``OPTIONS`` of a Redis cache that our own client takes over, in Django's spelling or django-redis' capitals."""


@cache
def get_store() -> Store:
    """Return the store on ``AXES_REDIS_CLIENT``, or else on the cache ``AXES_CACHE``.

    Raises ``ImproperlyConfigured`` when there is no such cache, or a Redis cache names no server.
    """
    settings = get_settings()
    config = django_settings.CACHES.get(settings.cache)
    if config is None:
        raise ImproperlyConfigured(f"AXES_CACHE is {settings.cache!r}; CACHES has {', '.join(django_settings.CACHES)}.")
    prefix = config.get("KEY_PREFIX")
    namespace = f"axes:{prefix}" if prefix else "axes"
    if settings.redis_client is not None:
        return _redis_store(_given(settings.redis_client), namespace, settings, ours=False)
    if not is_redis(config):
        shared = not isinstance(caches[settings.cache], LocMemCache)
        return CacheStore(lambda: caches[settings.cache], shared=shared)
    url = primary_of(settings.cache, config)
    try:
        client = build_client(url, _options(config), timeout=settings.store_timeout)
    except (ValueError, TypeError) as error:
        raise ImproperlyConfigured(f"CACHES[{settings.cache!r}] cannot be used as the store: {error}") from error
    return _redis_store(client, namespace, settings, ours=True)


@cache
def get_failover() -> FailoverStore:
    """Return the store for logins: the one of ``get_store``, and what takes its place while it is away."""
    settings = get_settings()
    return FailoverStore(get_store(), on_failure=settings.on_store_failure, rest=settings.store_rest)


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
    if client.get_encoder().decode_responses:
        raise ImproperlyConfigured("AXES_REDIS_CLIENT returns a client that decodes responses; it takes one without.")
    return client


def _redis_store(client: Any, namespace: str, settings: AxesSettings, *, ours: bool) -> RedisStore:
    return RedisStore(
        client,
        namespace=namespace,
        outbox_max=settings.outbox_max,
        database=database_name(),
        rows=Ledger(),
        ours=ours,
    )


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
    return {name: given[name] for name in CLIENT_OPTIONS if name in given}


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == "CACHES" or setting.startswith("AXES_"):
        if get_store.cache_info().currsize and isinstance(store := get_store(), RedisStore):
            store.close()
        get_store.cache_clear()
        get_failover.cache_clear()


setting_changed.connect(_forget, dispatch_uid="axes_async.store")
