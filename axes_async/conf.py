"""The ``AXES_*`` settings as one typed, frozen object.

Read from Django's settings when first asked for, dropped when a test overrides one; nothing is ever written back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache, partial
from typing import Any, Literal, NoReturn, cast

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.http import HttpRequest
from django.utils.module_loading import import_string

from axes_async.policy import PARAMETERS, Parameter

CoolOff = timedelta | Callable[[HttpRequest | None], timedelta | float | None] | None
LONGEST_COOLOFF = timedelta(days=36_500)
LONGEST_WAIT = 1_000_000
MOST = 2**31 - 1
"""What an integer column holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AxesSettings:
    """Every setting of axes_async, checked and in its final type; field ``name`` is the setting ``AXES_NAME``."""

    enabled: bool = True
    """``False`` makes the whole package inert."""
    failure_limit: int = 3
    """Failures after which a counter locks."""
    lock_out_at_failure: bool = True
    """``False`` counts and logs, and never locks."""
    lockout_parameters: tuple[tuple[Parameter, ...], ...] = (("ip_address",),)
    """What is counted: one counter per inner tuple."""
    cooloff_time: CoolOff = None
    """How long failures and lockouts last after the last failure; ``None`` until a reset."""
    reset_on_success: bool | Literal["account"] = False
    """What a login clears: nothing, counters whose rule holds the username, or all of the attempt's counters."""
    reset_cool_off_on_failure_during_lockout: bool = False
    """Whether an attempt during a lockout starts its cool-off anew."""
    http_response_code: int = 429
    """Status of the lockout response."""
    enable_access_failure_log: bool = True
    """Whether each failure gets an ``AccessFailureLog`` row."""
    disable_access_log: bool = False
    """Whether logins and logouts go without ``AccessLog`` rows."""
    cache: str = "default"
    """Alias in ``CACHES`` whose server holds counters and outbox."""
    redis_client: Callable[[], Any] | None = None
    """Returns a redis-py compatible client to use in place of the one built from the cache's ``LOCATION``."""
    reserve_wait: float = 1.0
    """Seconds an attempt waits at most for other attempts of the same client to be settled."""
    reserve_lease: float = 30.0
    """Seconds after which a reservation that was never settled is given back."""
    store_timeout: float = 0.1
    """Seconds to wait for the store's connection, and for its answer."""
    on_store_failure: Literal["database", "deny", "allow"] = "database"
    """What happens to logins while the store is away: decided and written in SQL, refused, or let through unguarded."""
    store_rest: float = 1.0
    """Seconds between two looks at a store that is away; logins do not wait for it meanwhile."""
    outbox_max: int = 1_000_000
    """Events the outbox holds at most; what comes after that is counted, not kept."""
    celery_queue: str | None = None
    """Celery queue for our messages; ``None`` for the project's default queue."""

    @property
    def lease_ms(self) -> int:
        """``reserve_lease`` in milliseconds."""
        return max(1, round(self.reserve_lease * 1000))

    def cooloff_for(self, request: HttpRequest | None) -> float | None:
        """Return the cool-off in seconds for ``request``; ``None`` when only a reset ends a lockout.

        Raises ``ImproperlyConfigured`` when a callable ``AXES_COOLOFF_TIME`` returns something else.
        """
        value = self.cooloff_time
        if callable(value):
            value = _duration("AXES_COOLOFF_TIME", value(request), takes="a callable that returns one of those")
        return value.total_seconds() if value else None


def _refuse(name: str, value: object, takes: str) -> NoReturn:
    raise ImproperlyConfigured(f"{name} is {value!r}; it takes {takes}.")


def _boolean(name: str, value: object) -> bool:
    return value if isinstance(value, bool) else _refuse(name, value, "True or False")


def _integer(name: str, value: object, *, least: int, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        _refuse(name, value, f"a whole number from {least}" + ("" if most is None else f" to {most}"))
    return value


def _seconds(name: str, value: object, *, positive: bool) -> float:
    takes = f"a number of seconds, {'more than 0' if positive else '0 or more'} and at most {LONGEST_WAIT:,}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(name, value, takes)
    if not 0 <= value <= LONGEST_WAIT or (positive and value == 0):
        _refuse(name, value, takes)
    return float(value)


def _text(name: str, value: object) -> str:
    return value if isinstance(value, str) and value else _refuse(name, value, "a text that is not empty")


def _optional_text(name: str, value: object) -> str | None:
    return None if value is None else _text(name, value)


def _duration(
    name: str, value: object, takes: str = "None, a timedelta, a number of hours, or a callable or its dotted path"
) -> timedelta | None:
    if value is None:
        return None
    duration: object = value
    if isinstance(value, int | float) and not isinstance(value, bool):
        hours_at_most = LONGEST_COOLOFF.total_seconds() / 3600
        duration = timedelta(hours=value) if 0 < value <= hours_at_most else None
    if not isinstance(duration, timedelta) or not timedelta(milliseconds=1) <= duration <= LONGEST_COOLOFF:
        _refuse(name, value, f"{takes}; a duration is more than 0 and at most {LONGEST_COOLOFF.days} days")
    return duration


def _callable(name: str, value: object) -> Callable[..., Any]:
    found = value
    if isinstance(value, str):
        try:
            found = import_string(value)
        except (ImportError, ValueError, TypeError) as error:
            takes = "it takes a callable or the dotted path of one"
            raise ImproperlyConfigured(f"{name} is {value!r}, which cannot be imported ({error}); {takes}.") from error
    return found if callable(found) else _refuse(name, value, "a callable or the dotted path of one")


def _optional_callable(name: str, value: object) -> Callable[..., Any] | None:
    return None if value is None else _callable(name, value)


def _cooloff(name: str, value: object) -> CoolOff:
    if isinstance(value, str) or callable(value):
        return _callable(name, value)
    return _duration(name, value)


def _reset_on_success(name: str, value: object) -> bool | Literal["account"]:
    if value == "account":
        return "account"
    return value if isinstance(value, bool) else _refuse(name, value, 'False, "account" or True')


def _on_store_failure(name: str, value: object) -> str:
    if isinstance(value, str) and value in {"database", "deny", "allow"}:
        return value
    _refuse(name, value, '"database", "deny" or "allow"')


def _rules(name: str, value: object) -> tuple[tuple[Parameter, ...], ...]:
    takes = f"a list of {', '.join(PARAMETERS)}, or of lists of these to use them together"
    if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
        _refuse(name, value, takes)
    rules: list[tuple[Parameter, ...]] = []
    for item in value:
        together = [item] if isinstance(item, str) else item
        if not isinstance(together, list | tuple | set | frozenset) or not together:
            _refuse(name, value, takes)
        if not all(isinstance(parameter, str) and parameter in PARAMETERS for parameter in together):
            _refuse(name, value, takes)
        rule = cast("tuple[Parameter, ...]", tuple(parameter for parameter in PARAMETERS if parameter in together))
        if rule not in rules:
            rules.append(rule)
    return tuple(rules)


_READERS: Mapping[str, Callable[[str, object], Any]] = {
    "enabled": _boolean,
    "failure_limit": partial(_integer, least=1, most=MOST),
    "lock_out_at_failure": _boolean,
    "lockout_parameters": _rules,
    "cooloff_time": _cooloff,
    "reset_on_success": _reset_on_success,
    "reset_cool_off_on_failure_during_lockout": _boolean,
    "http_response_code": partial(_integer, least=100, most=599),
    "enable_access_failure_log": _boolean,
    "disable_access_log": _boolean,
    "cache": _text,
    "redis_client": _optional_callable,
    "reserve_wait": partial(_seconds, positive=False),
    "reserve_lease": partial(_seconds, positive=True),
    "store_timeout": partial(_seconds, positive=True),
    "on_store_failure": _on_store_failure,
    "store_rest": partial(_seconds, positive=True),
    "outbox_max": partial(_integer, least=1),
    "celery_queue": _optional_text,
}


@cache
def get_settings() -> AxesSettings:
    """Return the settings in force.

    Raises ``ImproperlyConfigured``, naming the setting, what it got and what it takes, for a value of a wrong type or
    out of range.
    """
    values = {}
    for field in fields(AxesSettings):
        name = f"AXES_{field.name.upper()}"
        if hasattr(django_settings, name):
            values[field.name] = _READERS[field.name](name, getattr(django_settings, name))
    return AxesSettings(**values)


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting.startswith("AXES_"):
        get_settings.cache_clear()


setting_changed.connect(_forget, dispatch_uid="axes_async.conf")
