"""``manage.py axes_sync``: have the store take over what the database knows better."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from axes_async.errors import AxesError
from axes_async.management.database import needs_database
from axes_async.stores.factory import get_store
from axes_async.tasks.sync import sync_store


class Command(BaseCommand):
    """What a worker does by itself; here, without one."""

    help = "Writes the counters that the store lacks, or has differently, from the database into the store."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with needs_database():
                done = sync_store(get_store())
        except AxesError as error:
            raise CommandError(f"The store cannot be synced: {error}") from error
        if not done:
            raise CommandError("The store is not complete yet: it does not answer, or another sync is at work.")
        self.stdout.write("The store has every counter of the database.")
