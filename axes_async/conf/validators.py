"""What the value of a setting may be: one reader for each kind, which returns it in its final type.

A value that a reader does not take raises ``ImproperlyConfigured``, naming the setting, what it got and what it takes.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from inspect import iscoroutinefunction, signature
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import Promise
from django.utils.module_loading import import_string

from axes_async.conf.networks import Networks, ipware, parse_network

CoolOff = timedelta | Callable[[HttpRequest | None], timedelta | float | None] | None
LockoutCallable = Callable[[HttpRequest, HttpResponseBase | None, Mapping[str, str]], HttpResponseBase]
ORIGIN = r"(?i)[a-z][a-z0-9+.-]*://[^/?#@,\s]+"
OLDEST = timedelta(days=36_500)
"""The longest duration."""
YOUNGEST = timedelta(hours=1)
"""A row tells that its event is written, for as long as the event may come again."""
LONGEST_WAIT = 1_000_000
MOST = 2**31 - 1
"""What an integer column holds."""
COOLOFFS = "None, a timedelta, a number of hours, or a callable or its dotted path"


def refuse(name: str, value: object, takes: str) -> NoReturn:
    """Raise ``ImproperlyConfigured``: the setting ``name`` is ``value``, and takes something else."""
    raise ImproperlyConfigured(f"{name} is {value!r}; it takes {takes}.")


def boolean(name: str, value: object) -> bool:
    return value if isinstance(value, bool) else refuse(name, value, "True or False")


def integer(name: str, value: object, *, least: int, most: int | None = None, optional: bool = False) -> int | None:
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        takes = f"a whole number from {least}" + ("" if most is None else f" to {most}")
        refuse(name, value, f"None or {takes}" if optional else takes)
    return value


def seconds(name: str, value: object, *, positive: bool) -> float:
    takes = f"a number of seconds, {'more than 0' if positive else '0 or more'} and at most {LONGEST_WAIT:,}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_WAIT:
        refuse(name, value, takes)
    return refuse(name, value, takes) if positive and value == 0 else float(value)


def text(name: str, value: object) -> str:
    return value if isinstance(value, str) and value else refuse(name, value, "a text that is not empty")


def optional_text(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    refuse(name, value, "None or a text that is not empty")


def lazy_text(name: str, value: object) -> str | Promise | None:
    """Read a text that is not empty, or a lazy one, which is only made out when it is used, or ``None``."""
    return value if isinstance(value, Promise) else optional_text(name, value)


def _items(name: str, value: object, takes: str, fits: Callable[[Any], object]) -> tuple[Any, ...]:
    """Return the items of a list, each of which ``fits``; ``None`` is an empty one."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple | set | frozenset) or not all(map(fits, value)):
        refuse(name, value, takes)
    return tuple(value)


def _matches(pattern: str) -> Callable[[object], bool]:
    """Return what tells whether a value is a text that ``pattern`` matches as a whole."""
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def texts(name: str, value: object) -> tuple[str, ...]:
    return _items(
        name, value, "a list of texts that are not empty", lambda item: isinstance(item, str) and item.strip()
    )


def networks(name: str, value: object, *, unix: bool = False) -> Networks:
    """Read a list of addresses and networks. With ``unix``, that word stands for a Unix socket."""
    takes = "a list of addresses and networks such as '203.0.113.7' or '2001:db8::/32'"
    takes += ", without bits beyond the prefix" + (", and 'unix' for a Unix socket" if unix else "")
    items = _items(name, value, takes, lambda item: isinstance(item, str | IPv4Network | IPv6Network))
    sockets = [item for item in items if unix and item == "unix"]
    try:
        return Networks(tuple(parse_network(str(item)) for item in items if item not in sockets), unix=bool(sockets))
    except ValueError:
        refuse(name, value, takes)


def hops(name: str, value: object) -> tuple[str, ...]:
    """Read the proxies behind the client as python-ipware takes them."""
    read = texts(name, value)
    try:
        ipware((), True, None, read)
    except ValueError:
        refuse(name, value, "a list of addresses, networks and beginnings of addresses, one for each proxy")
    return read


def origins(name: str, value: object) -> tuple[str, ...]:
    """Read origins (RFC 6454): ``"*"``, or scheme, host and port of one, or a list of these."""
    takes = 'None, "*", an origin such as "https://example.com", or a list of origins'
    if value == "*":
        return ("*",)
    read = _items(name, [value] if isinstance(value, str) else value, takes, _matches(ORIGIN))
    return tuple(origin.lower() for origin in read)


def mail_addresses(name: str, value: object) -> tuple[str, ...]:
    return _items(name, value, "a list of mail addresses", _matches(r"[^@\s]+@[^@\s]+"))


def web_address(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and _leads_somewhere(value)):
        return value
    takes = "a URL in ASCII that begins with https:// or http:// and has a host, and no user and password"
    refuse(name, value, f"None, or {takes}; a port is a number from 1 to 65535")


def _leads_somewhere(url: str) -> bool:
    if not re.fullmatch(r"https?://[^/@?#\s]+([/?][!-~]*)?", url):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname and parts.hostname.encode("idna") and parts.port != 0)
    except ValueError:  # Of brackets, a port, or a host that no name server can be asked for.
        return False


def webhook_secrets(name: str, value: object) -> tuple[bytes, ...]:
    """Read secrets as Standard Webhooks writes them: ``whsec_`` and base64. No error shows one."""
    items: Iterable[Any] = value if isinstance(value, list | tuple) else [] if value is None else [value]
    try:
        read = [b64decode(item.removeprefix("whsec_"), validate=True) for item in items]
    except (AttributeError, TypeError, ValueError):
        read = [b""]
    if not all(24 <= len(secret) <= 64 for secret in read):
        takes = "None, or a secret of 24 to 64 bytes as base64, after 'whsec_', or a list of these to sign with each"
        raise ImproperlyConfigured(f"{name} is something else than it takes: {takes}.")
    return tuple(read)


def choice(name: str, value: object, *, choices: tuple[str, ...]) -> str:
    if isinstance(value, str) and value in choices:
        return value
    refuse(name, value, " or ".join(f'"{each}"' for each in choices))


def subset(name: str, value: object, *, choices: tuple[str, ...]) -> tuple[str, ...]:
    takes = f"a list of {' and '.join(repr(each) for each in choices)}, or of one of them"
    return _items(name, value, takes, lambda item: item in choices)


def reset_on_success(name: str, value: object) -> bool | Literal["account"]:
    if value == "account":
        return "account"
    return value if isinstance(value, bool) else refuse(name, value, 'False, "account" or True')


def duration(
    name: str, value: object, takes: str = COOLOFFS, *, unit: timedelta = timedelta(hours=1), least_ms: int = 1
) -> timedelta | None:
    """Read a timedelta, a number of ``unit``, or ``None``; ``takes`` is what the error says."""
    if value is None:
        return None
    length: object = value
    if isinstance(value, int | float) and not isinstance(value, bool):
        length = value * unit if 0 < value <= OLDEST / unit else None
    if not isinstance(length, timedelta) or not timedelta(milliseconds=least_ms) <= length <= OLDEST:
        refuse(name, value, f"{takes}; a duration is more than 0 and at most {OLDEST.days} days")
    return length


def age(name: str, value: object) -> timedelta | None:
    """Read how long rows are kept: a timedelta, a number of days, or ``None`` for ever."""
    takes = "None, a timedelta or a number of days, at least an hour"
    return duration(name, value, takes, unit=timedelta(days=1), least_ms=YOUNGEST // timedelta(milliseconds=1))


def cooloff(name: str, value: object) -> CoolOff:
    """Read a cool-off: a duration, or what returns one for a request."""
    return dotted(name, value, COOLOFFS) if isinstance(value, str) or callable(value) else duration(name, value)


def seconds_of(name: str, value: CoolOff, request: HttpRequest | None) -> float | None:
    """Return a cool-off in seconds, having called what is callable; ``None`` when only a reset ends a lockout."""
    if callable(value):
        value = duration(name, value(request), takes="a callable that returns one of those")
    return value.total_seconds() if value else None


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
    return None if value is None else dotted(name, value)


def lockout_callable(name: str, value: object) -> LockoutCallable | None:
    """Read what makes the lockout response: it takes request, response and credentials, or goes without the second."""
    if value is None:
        return None
    found = dotted(name, value)
    if _takes(found, 3):
        return found
    if _takes(found, 2):
        return lambda request, _, credentials: found(request, credentials)
    refuse(name, value, "a callable, or the dotted path of one, that takes request, response and credentials")


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
