"""``manage.py axes_sync``: what a worker does by itself; here, without one."""

from typing import Any

from django.core.management.base import CommandError

from axes_async.management.base import AxesCommand
from axes_async.stores.factory import get_store
from axes_async.tasks.sync import sync_store


class Command(AxesCommand):
    help = "Writes the counters that the store lacks, or has differently, from the database into the store."

    def handle(self, *args: Any, **options: Any) -> None:
        if not sync_store(get_store()):
            raise CommandError("The store is not complete yet: it does not answer, or another sync is at work.")
        self.stdout.write("The store has every counter of the database.")
