"""What the value of a setting may be: one reader for each kind, which returns it in its final type.

A value that a reader does not take raises ``ImproperlyConfigured``, naming the setting, what it got and what it takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from inspect import iscoroutinefunction, signature
from typing import Any, Literal, NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import Promise
from django.utils.module_loading import import_string

CoolOff = timedelta | Callable[[HttpRequest | None], timedelta | float | None] | None
LockoutCallable = Callable[[HttpRequest, HttpResponseBase | None, Mapping[str, str]], HttpResponseBase]
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@,\s]+", re.IGNORECASE)
LONGEST_COOLOFF = timedelta(days=36_500)
OLDEST = timedelta(days=36_500)
YOUNGEST = timedelta(hours=1)
"""A row tells that its event is written, for as long as the event may come again."""
LONGEST_WAIT = 1_000_000
MOST = 2**31 - 1
"""What an integer column holds."""


def refuse(name: str, value: object, takes: str) -> NoReturn:
    """Raise ``ImproperlyConfigured``: the setting ``name`` is ``value``, and takes something else."""
    raise ImproperlyConfigured(f"{name} is {value!r}; it takes {takes}.")


def boolean(name: str, value: object) -> bool:
    """Read a truth value."""
    return value if isinstance(value, bool) else refuse(name, value, "True or False")


def integer(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Read a whole number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        refuse(name, value, f"a whole number from {least}" + ("" if most is None else f" to {most}"))
    return value


def optional_integer(name: str, value: object, *, least: int, most: int) -> int | None:
    """Read a whole number from ``least`` to ``most``, or ``None``."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        refuse(name, value, f"None or a whole number from {least} to {most}")
    return value


def seconds(name: str, value: object, *, positive: bool) -> float:
    """Read a number of seconds."""
    takes = f"a number of seconds, {'more than 0' if positive else '0 or more'} and at most {LONGEST_WAIT:,}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(name, value, takes)
    if not 0 <= value <= LONGEST_WAIT or (positive and value == 0):
        refuse(name, value, takes)
    return float(value)


def text(name: str, value: object) -> str:
    """Read a text that is not empty."""
    return value if isinstance(value, str) and value else refuse(name, value, "a text that is not empty")


def optional_text(name: str, value: object) -> str | None:
    """Read a text that is not empty, or ``None``."""
    if value is None or (isinstance(value, str) and value):
        return value
    refuse(name, value, "None or a text that is not empty")


def lazy_text(name: str, value: object) -> str | Promise | None:
    """Read a text that is not empty, or a lazy one, which is only made out when it is used, or ``None``."""
    return value if isinstance(value, Promise) else optional_text(name, value)


def texts(name: str, value: object) -> tuple[str, ...]:
    """Read a list of texts; ``None`` is none."""
    takes = "a list of texts that are not empty"
    if value is None:
        return ()
    if not isinstance(value, list | tuple | set | frozenset):
        refuse(name, value, takes)
    if not all(isinstance(item, str) and item.strip() for item in value):
        refuse(name, value, takes)
    return tuple(value)


def choice(name: str, value: object, *, choices: tuple[str, ...]) -> str:
    """Read one of ``choices``."""
    if isinstance(value, str) and value in choices:
        return value
    refuse(name, value, " or ".join(f'"{each}"' for each in choices))


def duration(
    name: str, value: object, takes: str = "None, a timedelta, a number of hours, or a callable or its dotted path"
) -> timedelta | None:
    """Read a timedelta, a number of hours, or ``None``; ``takes`` is what the error says."""
    if value is None:
        return None
    length: object = value
    if isinstance(value, int | float) and not isinstance(value, bool):
        hours_at_most = LONGEST_COOLOFF.total_seconds() / 3600
        length = timedelta(hours=value) if 0 < value <= hours_at_most else None
    if not isinstance(length, timedelta) or not timedelta(milliseconds=1) <= length <= LONGEST_COOLOFF:
        refuse(name, value, f"{takes}; a duration is more than 0 and at most {LONGEST_COOLOFF.days} days")
    return length


def age(name: str, value: object) -> timedelta | None:
    """Read how long rows are kept: a timedelta, a number of days, or ``None`` for ever."""
    if value is None:
        return None
    length: object = value
    if isinstance(value, int | float) and not isinstance(value, bool):
        length = timedelta(days=value) if 0 < value <= OLDEST.days else None
    if not isinstance(length, timedelta) or not YOUNGEST <= length <= OLDEST:
        refuse(name, value, f"None, a timedelta or a number of days, from an hour to {OLDEST.days} days")
    return length


def dotted(name: str, value: object, takes: str = "a callable or the dotted path of one") -> Callable[..., Any]:
    """Read a callable, or the dotted path of one; ``takes`` is what the error says."""
    found = value
    if isinstance(value, str):
        try:
            found = import_string(value)
        except (ImportError, ValueError, TypeError) as error:
            raise ImproperlyConfigured(
                f"{name} is {value!r}, which cannot be imported ({error}); it takes {takes}."
            ) from error
    if not callable(found):
        refuse(name, value, takes)
    if iscoroutinefunction(found) or iscoroutinefunction(getattr(found, "__call__", None)):  # noqa: B004
        # Its answer would be a coroutine: true for whoever asks, and a text that no two attempts share.
        refuse(name, value, "a callable that is not async, or the dotted path of one")
    return found


def optional_dotted(name: str, value: object) -> Callable[..., Any] | None:
    """Read a callable, the dotted path of one, or ``None``."""
    return None if value is None else dotted(name, value)


def lockout_callable(name: str, value: object) -> LockoutCallable | None:
    """Read what makes the lockout response: it takes request, response and credentials, or goes without the second."""
    if value is None:
        return None
    found = dotted(name, value)
    if not iscoroutinefunction(found):
        if _takes(found, 3):
            return found
        if _takes(found, 2):
            return lambda request, _, credentials: found(request, credentials)
    takes = "a callable, or the dotted path of one, that is not async and takes request, response and credentials"
    refuse(name, value, takes)


def _takes(found: Callable[..., Any], arguments: int) -> bool:
    """Return whether ``found`` can be called with so many; one that tells no signature is believed to."""
    try:
        known = signature(found)
    except (TypeError, ValueError):
        return True
    try:
        known.bind(*range(arguments))
    except TypeError:
        return False
    return True


def origins(name: str, value: object) -> tuple[str, ...]:
    """Read origins (RFC 6454): ``"*"``, or scheme, host and port of one, or a list of these."""
    takes = 'None, "*", an origin such as "https://example.com", or a list of origins'
    if value is None or value == "*":
        return () if value is None else ("*",)
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple | set | frozenset):
        refuse(name, value, takes)
    for origin in listed:
        if not isinstance(origin, str) or not ORIGIN.fullmatch(origin):
            refuse(name, value, takes)
    return tuple(origin.lower() for origin in listed)


def cooloff(name: str, value: object) -> CoolOff:
    """Read a cool-off: a duration, or what returns one for a request."""
    if isinstance(value, str) or callable(value):
        return dotted(name, value, "None, a timedelta, a number of hours, or a callable or its dotted path")
    return duration(name, value)


def seconds_of(name: str, value: CoolOff, request: HttpRequest | None) -> float | None:
    """Return a cool-off in seconds, having called what is callable; ``None`` when only a reset ends a lockout."""
    if callable(value):
        value = duration(name, value(request), takes="a callable that returns one of those")
    return value.total_seconds() if value else None


def reset_on_success(name: str, value: object) -> bool | Literal["account"]:
    """Read what a login clears."""
    if value == "account":
        return "account"
    return value if isinstance(value, bool) else refuse(name, value, 'False, "account" or True')


def on_store_failure(name: str, value: object) -> str:
    """Read what happens to logins while the store is away."""
    if isinstance(value, str) and value in {"database", "deny", "allow"}:
        return value
    refuse(name, value, '"database", "deny" or "allow"')
