"""``manage.py axes_reset``: lift lockouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from kombu.exceptions import KombuError

from axes_async.conf import get_settings
from axes_async.errors import AxesError
from axes_async.tasks.reset import count, reset, reset_event


class Command(BaseCommand):
    """Each address and each name is a reset of its own; without any, everything is reset."""

    help = "Removes access attempts and lifts the lockouts they stand for: all, or those of addresses and usernames."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("ip", nargs="*", metavar="IP", help="reset the attempts of this address")
        parser.add_argument(
            "--username", nargs="+", action="extend", default=[], metavar="NAME", help="reset the attempts of this name"
        )
        parser.add_argument("--dry-run", action="store_true", help="say how many attempts would go, and reset nothing")
        parser.add_argument("--queue", action="store_true", help="have a Celery worker do it, and print the task's id")

    def handle(self, *args: Any, **options: Any) -> None:
        """Reset; refuse all if one argument is wrong."""
        wanted = list(self._wanted(options["ip"], options["username"]))
        try:
            for arguments in wanted:
                reset_event(**arguments)
            if options["queue"] and not options["dry_run"]:
                for arguments in wanted:
                    self.stdout.write(reset.apply_async(kwargs=arguments, queue=get_settings().celery_queue).id)
                return
            total = sum((count if options["dry_run"] else reset)(**arguments) for arguments in wanted)
        except (AxesError, KombuError, ValueError) as error:
            raise CommandError(str(error)) from error
        if not total:
            self.stdout.write("No attempts found.")
        else:
            self.stdout.write(f"{total} attempts {'would be ' if options['dry_run'] else ''}removed.")

    @staticmethod
    def _wanted(addresses: list[str], names: list[str]) -> Iterator[dict[str, Any]]:
        yield from ({"ip": address} for address in addresses)
        yield from ({"username": name} for name in names)
        if not addresses and not names:
            yield {}
