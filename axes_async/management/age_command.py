"""What the commands that delete old rows of a log share."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from axes_async.conf.validators import OLDEST
from axes_async.management.base import AxesCommand
from axes_async.models import AccessFailureLog, AccessLog
from axes_async.tasks.purge import delete_older


class AgeCommand(AxesCommand):
    """Deletes rows of ``model`` that are older than ``--age`` days, once, as the purge does it regularly."""

    model: type[AccessLog | AccessFailureLog]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--age", type=int, default=30, metavar="DAYS", help="how many days rows are kept (default: 30)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 <= options["age"] <= OLDEST.days:
            takes = f"a whole number of days from 0 to {OLDEST.days}"
            raise CommandError(f"--age is {options['age']}; it takes {takes}.", returncode=2)
        gone = delete_older(self.model, timedelta(days=options["age"]))
        self.stdout.write(f"{gone} logs removed." if gone else "No logs found.")
