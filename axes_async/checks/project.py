"""System checks: what is missing or in the wrong order, with a hint at how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import current_app
from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core import checks
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from axes_async.backends import AxesStandaloneBackend
from axes_async.checks.database import check_character_set
from axes_async.checks.settings import (
    check_admin,
    check_lists,
    check_names,
    check_proxies,
    check_response,
    check_rules,
)
from axes_async.conf import get_settings
from axes_async.errors import AxesError
from axes_async.login.rules import may_be_permanent
from axes_async.middleware import AxesMiddleware
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store

MIDDLEWARE = "axes_async.middleware.AxesMiddleware"
BACKEND = "axes_async.backends.AxesStandaloneBackend"


def register_all() -> None:
    """Register every check; repeating it changes nothing."""
    for check in (check_settings, check_middleware, check_backends):
        register(check, "axes_async")
    for check in (check_names, check_proxies, check_lists, check_rules, check_admin, check_response):
        register(check, "axes_async")
    for check in (check_cache, check_eviction, check_beat, check_cooloff):
        register(check, "axes_async", deploy=True)
    register(check_character_set, "axes_async", checks.Tags.database)


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report the first setting that cannot be used, and a store that cannot be built."""
    try:
        if get_settings().enabled:
            get_store()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="axes_async.E001")]
    return []


def check_middleware(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a middleware that is missing, doubled, or not the last."""
    if _is_off():
        return []
    places = _places(django_settings.MIDDLEWARE, AxesMiddleware)
    if len(places) != 1:
        missing = f"{MIDDLEWARE} is {'missing from' if not places else 'more than once in'} MIDDLEWARE."
        return [checks.Warning(missing, hint=f"Add {MIDDLEWARE!r} once, as the last entry.", id="axes_async.W001")]
    if places[0] != len(django_settings.MIDDLEWARE) - 1:
        hint = "Make it the last entry, so that what comes before sees the lockout response as the final one."
        return [checks.Warning(f"{MIDDLEWARE} is not the last in MIDDLEWARE.", hint=hint, id="axes_async.W002")]
    return []


def check_backends(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a backend that is missing, or not the first: those before it look at passwords of locked clients."""
    if _is_off():
        return []
    places = _places(django_settings.AUTHENTICATION_BACKENDS, AxesStandaloneBackend)
    hint = f"Make {BACKEND!r} the first entry."
    if not places:
        missing = f"{BACKEND} is missing from AUTHENTICATION_BACKENDS, so that authenticate() locks nobody out."
        return [checks.Warning(missing, hint=hint, id="axes_async.W003")]
    if places[0] != 0:
        late = f"{BACKEND} is not the first in AUTHENTICATION_BACKENDS: those before it try passwords unguarded."
        return [checks.Warning(late, hint=hint, id="axes_async.W004")]
    return []


def check_cache(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a cache in which every process, or nobody, has counters."""
    if _is_off():
        return []
    settings = get_settings()
    backend = django_settings.CACHES.get(settings.cache, {}).get("BACKEND", "")
    is_elsewhere = settings.store == "database" or settings.redis_client is not None
    if is_elsewhere or not _places([backend], LocMemCache) + _places([backend], DummyCache):
        return []
    alone = f"CACHES[{settings.cache!r}] is not shared between processes, so each has counters of its own, or none."
    return [
        checks.Warning(alone, hint="Use a Redis or Valkey server: AXES_CACHE names its entry.", id="axes_async.W005")
    ]


def check_eviction(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a store that drops keys when its memory is full; one that does not tell is taken at its best."""
    if _is_off():
        return []
    try:
        store = get_store()
        policy = store.eviction() if isinstance(store, OutboxStore) else ""
    except (AxesError, ImproperlyConfigured):
        return []
    if policy in {"", "noeviction"}:
        return []
    forgets = f"The store's maxmemory-policy is {policy}: when its memory is full, it forgets counters or events."
    return [checks.Warning(forgets, hint="Set it to noeviction.", id="axes_async.W006")]


def check_beat(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a beat schedule without our tasks."""
    if _is_off():
        return []
    entries = (current_app.conf.beat_schedule or {}).values()
    wanted = {"axes_async.drain", "axes_async.expire"}
    if get_settings().purges:
        wanted.add("axes_async.purge")
    missing = wanted - {entry.get("task") for entry in entries}
    if not missing:
        return []
    idle = f"CELERY_BEAT_SCHEDULE has no entry for {' and '.join(sorted(missing))}."
    hint = "Add the entries of axes_async.tasks.schedule.beat_schedule(), or schedule the tasks in another way."
    return [checks.Warning(idle, hint=hint, id="axes_async.W007")]


def check_cooloff(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report that lockouts last for ever."""
    if _is_off() or not may_be_permanent(get_settings()):
        return []
    forever = "AXES_COOLOFF_TIME is not set: failures and lockouts last until somebody resets them, and pile up."
    return [checks.Warning(forever, hint="Set it to a timedelta, if that is not what you want.", id="axes_async.W008")]


def _is_off() -> bool:
    try:
        return not get_settings().enabled
    except ImproperlyConfigured:
        return True


def _places(paths: Sequence[str], wanted: type) -> list[int]:
    """Return where ``wanted`` or a subclass stands in ``paths``; what cannot be imported is Django's to report."""
    places = []
    for place, path in enumerate(paths):
        try:
            found = import_string(path)
        except ImportError:
            continue
        if isinstance(found, type) and issubclass(found, wanted):
            places.append(place)
    return places
