"""Reads the site's settings from environment variables; a value that cannot be used is refused by name.

Knows the variables' forms and nothing of what they are for: that stands in `settings`.
"""

import math
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def text(name: str, default: str) -> str:
    """The variable `name`; unset and empty both mean `default`."""
    return os.environ.get(name, "").strip() or default


def flag(name: str, default: bool) -> bool:
    """A yes or no: 1, true, yes, on; 0, false, no, off. Raises `ImproperlyConfigured` for anything else."""
    value = text(name, "on" if default else "off").lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise _refused(name, "1 or 0 (true, yes, on; false, no, off)")


def positive_integer(name: str, default: int) -> int:
    """A whole number from 1 up. Raises `ImproperlyConfigured` for anything else."""
    value = text(name, str(default))
    if value.isascii() and value.isdecimal() and len(value) <= 9 and int(value) > 0:
        return int(value)
    raise _refused(name, "a whole number from 1 up")


def seconds(name: str) -> float | None:
    """A time in seconds, or None when the variable is not set. Raises `ImproperlyConfigured` for anything else."""
    value = text(name, "")
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        raise _refused(name, "a number of seconds above 0") from None
    # A year is longer than any cool-off, and short enough for every clock it is added to.
    if not math.isfinite(number) or not 0 < number <= 366 * 24 * 3600:
        raise _refused(name, "a number of seconds above 0, at most a year")
    return number


def redis_url(name: str, default: str) -> str:
    """A `redis://` or `rediss://` URL. Raises `ImproperlyConfigured` for anything else."""
    value = text(name, default)
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0
        _database_number(parts.path)
    except ValueError:
        usable = False
    if not usable:
        raise _refused(name, "a URL such as redis://127.0.0.1:6379/0", secret=True)
    return value


def next_database(url: str) -> str:
    """The Redis URL of the database after that of `url`: `redis://host/0` gives `redis://host/1`."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{_database_number(parts.path) + 1}"))


def without_password(url: str) -> str:
    """`url` as it may be shown: scheme, host, port and path."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def database(name: str, default: Path) -> dict[str, Any]:
    """The database of the URL in the variable `name`, or the SQLite file `default`.

    Raises `ImproperlyConfigured` when the URL cannot be read.
    """
    url = os.environ.get(name, "").strip()
    try:
        config: dict[str, Any] = dict(dj_database_url.parse(url)) if url else {}
    except ValueError:
        raise _refused(name, "a URL such as postgres://user:password@127.0.0.1:5432/name", secret=True) from None
    if not url:
        config = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(default)}
    if config["ENGINE"] == "django.db.backends.sqlite3":
        config["OPTIONS"] = {
            # Readers go on while one process writes; the others queue for the lock instead of failing half-way.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        }
    return config


def _database_number(path: str) -> int:
    number = path.strip("/") or "0"
    if not (number.isascii() and number.isdecimal()):
        raise ValueError(f"no database number: {path!r}")
    return int(number)


def _refused(name: str, takes: str, *, secret: bool = False) -> ImproperlyConfigured:
    got = "a value that is not" if secret else f"{os.environ.get(name)!r}, which is not"
    return ImproperlyConfigured(f"The environment variable {name} has {got} {takes}.")
