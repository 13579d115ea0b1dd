"""One clear line for a database that cannot be used: it is away, or has none of our tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from django.db import Error


@contextmanager
def needs_database() -> Iterator[None]:
    """Turn each error of the database in the block into a ``CommandError``."""
    try:
        yield
    except Error as error:
        raise CommandError(f"The database cannot be used: {error}") from error
