"""The function library: the Lua files of ``scripts/`` as one source, which a server is given once.

Its name and those of its functions hold a hash of the source. So two versions of this package can use one server at the
same time, and a server never runs another version than the caller's.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

FILES = ("key", "rules", "counter", "outbox", "steps", "reserve", "fail", "succeed", "look", "sync")
"""In this order: each uses what stands in those before it."""


class Library(NamedTuple):
    """A function library."""

    prefix: str
    """Begins the names of its functions."""
    source: str


def script(name: str) -> str:
    """Return the source of a file in ``scripts/``."""
    return (files(__package__) / "scripts" / f"{name}.lua").read_text(encoding="utf-8")


@cache
def library() -> Library:
    """Return the library with all steps."""
    body = "\n".join(script(name) for name in FILES)
    name = f"axes_{sha1(body.encode(), usedforsecurity=False).hexdigest()[:12]}"
    return Library(f"{name}_", f"#!lua name={name}\nlocal PREFIX = '{name}_'\n{body}")
