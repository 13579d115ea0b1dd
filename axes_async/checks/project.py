"""System checks of what surrounds the app: middleware, backends, cache, store, beat."""

from __future__ import annotations

from collections.abc import Sequence

from celery import current_app
from django.conf import settings as django_settings
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.module_loading import import_string

from axes_async.backends import AxesStandaloneBackend
from axes_async.checks import Warnings, check, warning
from axes_async.conf import AxesSettings
from axes_async.errors import AxesError
from axes_async.login.rules_in_force import cooloffs
from axes_async.middleware import AxesMiddleware
from axes_async.models import database
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store

MIDDLEWARE = "axes_async.middleware.AxesMiddleware"
BACKEND = "axes_async.backends.AxesStandaloneBackend"


@check()
def check_middleware(settings: AxesSettings) -> Warnings:
    """Report a middleware that is missing, doubled, or not the last."""
    places = _places(django_settings.MIDDLEWARE, AxesMiddleware)
    if len(places) != 1:
        missing = f"{MIDDLEWARE} is {'missing from' if not places else 'more than once in'} MIDDLEWARE."
        yield warning(1, missing, f"Add {MIDDLEWARE!r} once, as the last entry.")
    elif places[0] != len(django_settings.MIDDLEWARE) - 1:
        hint = "Make it the last entry, so that what comes before sees the lockout response as the final one."
        yield warning(2, f"{MIDDLEWARE} is not the last in MIDDLEWARE.", hint)


@check()
def check_backends(settings: AxesSettings) -> Warnings:
    """Report a backend that is missing, or not the first: those before it look at passwords of locked clients."""
    places = _places(django_settings.AUTHENTICATION_BACKENDS, AxesStandaloneBackend)
    hint = f"Make {BACKEND!r} the first entry."
    if not places:
        missing = f"{BACKEND} is missing from AUTHENTICATION_BACKENDS, so that authenticate() locks nobody out."
        yield warning(3, missing, hint)
    elif places[0] != 0:
        late = f"{BACKEND} is not the first in AUTHENTICATION_BACKENDS: those before it try passwords unguarded."
        yield warning(4, late, hint)


@check(deploy=True)
def check_cache(settings: AxesSettings) -> Warnings:
    """Report a cache in which every process, or nobody, has counters."""
    backend = django_settings.CACHES.get(settings.cache, {}).get("BACKEND", "")
    is_elsewhere = settings.store == "database" or settings.redis_client is not None
    if not is_elsewhere and _places([backend], LocMemCache, DummyCache):
        alone = f"CACHES[{settings.cache!r}] is not shared between processes, so each has counters of its own, or none."
        yield warning(5, alone, "Use a Redis or Valkey server: AXES_CACHE names its entry.")


@check(deploy=True)
def check_eviction(settings: AxesSettings) -> Warnings:
    """Report a store that drops keys when its memory is full; one that does not tell is taken at its best."""
    try:
        store = get_store()
        policy = store.eviction() if isinstance(store, OutboxStore) else ""
    except (AxesError, ImproperlyConfigured):
        return
    if policy not in {"", "noeviction"}:
        forgets = f"The store's maxmemory-policy is {policy}: when its memory is full, it forgets counters or events."
        yield warning(6, forgets, "Set it to noeviction.")


@check(deploy=True)
def check_beat(settings: AxesSettings) -> Warnings:
    """Report a beat schedule without our tasks."""
    wanted = {"axes_async.drain", "axes_async.expire"}
    kept = (settings.access_log_age, settings.access_failure_log_age, settings.access_reset_age)
    if any(age is not None for age in kept) or settings.access_failure_log_per_user_limit is not None:
        wanted.add("axes_async.purge")
    missing = wanted - {entry.get("task") for entry in (current_app.conf.beat_schedule or {}).values()}
    if missing:
        idle = f"CELERY_BEAT_SCHEDULE has no entry for {' and '.join(sorted(missing))}."
        hint = "Add the entries of axes_async.tasks.schedule.beat_schedule(), or schedule the tasks in another way."
        yield warning(7, idle, hint)


@check(deploy=True)
def check_cooloff(settings: AxesSettings) -> Warnings:
    """Report that lockouts last for ever, and so does what an attack leaves."""
    if None in cooloffs(settings):
        yield warning(
            8,
            "A rule has no cool-off: failures and lockouts last until somebody resets them. Whoever tries a million "
            "random names leaves about 1.6 GB in the tables of axes_async, and 230 MB in Redis, for ever.",
            "Set AXES_COOLOFF_TIME, or the rule's 'cooloff', to a timedelta: what has expired is removed. "
            "manage.py axes_reset removes what there is.",
        )


@check()
def check_transactions(settings: AxesSettings) -> Warnings:
    """Report an SQLite whose transactions begin by reading: it refuses those that write after another process has."""
    connection = connections[database()]
    mode = connection.settings_dict.get("OPTIONS", {}).get("transaction_mode") or "DEFERRED"
    is_shared = connection.vendor == "sqlite" and not connection.is_in_memory_db()  # type: ignore[attr-defined]
    if is_shared and mode.upper() == "DEFERRED":
        told = "SQLite refuses transactions that read first and write after another process has: database is locked."
        hint = f'Set "OPTIONS": {{"transaction_mode": "IMMEDIATE"}} in DATABASES[{database()!r}].'
        yield warning(20, told, hint)


def _places(paths: Sequence[str], *wanted: type) -> list[int]:
    """Return where one of ``wanted`` or a subclass stands; what cannot be imported is Django's to report."""
    places = []
    for place, path in enumerate(paths):
        try:
            found = import_string(path)
        except ImportError:
            continue
        if isinstance(found, type) and issubclass(found, wanted):
            places.append(place)
    return places
