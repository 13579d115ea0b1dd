"""What the commands say of a database that is away or has not our tables: one line, as of a store that is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from django.db import Error


@contextmanager
def needs_database() -> Iterator[None]:
    """Raise ``CommandError`` for whatever the database raises in the block."""
    try:
        yield
    except Error as error:
        raise CommandError(f"The database cannot be used: {error}") from error
