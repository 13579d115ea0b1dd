"""What the commands that lift lockouts share: refuse all if one argument is wrong, count, queue or carry out, and tell.

Which attempts are meant is each command's own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from kombu.exceptions import KombuError

from axes_async.conf import get_settings
from axes_async.delivery import publisher as outbox
from axes_async.errors import AxesError
from axes_async.management.database import needs_database
from axes_async.tasks.reset import count, reset, reset_event

BROKER_TIMEOUT = 5.0
"""Seconds to wait for a broker, each to connect and to answer."""


class ResetCommand(BaseCommand):
    """A command made of resets, each of which is an event of its own."""

    @abstractmethod
    def wanted(self, options: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Return the arguments of each reset that the command line asks for."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments that all of them have."""
        parser.add_argument("--dry-run", action="store_true", help="say how many attempts would go, and reset nothing")
        parser.add_argument("--queue", action="store_true", help="have a Celery worker do it, and print the task's id")

    def handle(self, *args: Any, **options: Any) -> None:
        """Reset; refuse all if one argument is wrong."""
        wanted = list(self.wanted(options))
        try:
            for arguments in wanted:
                reset_event(**arguments)
            if options["queue"] and not options["dry_run"]:
                self._queue(wanted)
                return
            with needs_database():
                total = sum((count if options["dry_run"] else reset)(**arguments) for arguments in wanted)
        except (AxesError, KombuError, ValueError) as error:
            raise CommandError(str(error)) from error
        if not total:
            self.stdout.write("No attempts found.")
        else:
            self.stdout.write(f"{total} attempts {'would be ' if options['dry_run'] else ''}removed.")

    def _queue(self, wanted: Iterable[dict[str, Any]]) -> None:
        queue = get_settings().celery_queue
        with outbox.bounded_connection(BROKER_TIMEOUT) as connection:
            for arguments in wanted:
                sent = reset.apply_async(kwargs=arguments, queue=queue, connection=connection, retry=False)
                self.stdout.write(sent.id)
