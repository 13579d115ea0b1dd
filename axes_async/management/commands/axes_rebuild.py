"""``manage.py axes_rebuild``: take the counters from the rows again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from axes_async.errors import AxesError
from axes_async.management.database import needs_database
from axes_async.tasks.rebuild import rebuild


class Command(BaseCommand):
    """What a worker does by itself when it finds the store flushed; here, whenever it is asked for."""

    help = "Takes every counter and lockout from the database again, without undoing what happens meanwhile."

    def handle(self, *args: Any, **options: Any) -> None:
        """Rebuild."""
        try:
            with needs_database():
                done = rebuild()
        except AxesError as error:
            raise CommandError(f"The store cannot be rebuilt: {error}") from error
        if not done:
            raise CommandError("The store was flushed or cooled while it was rebuilt. A worker goes on with it.")
        self.stdout.write("The counters were taken from the database.")
