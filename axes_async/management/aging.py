"""What the commands that delete old log rows share. Each command says itself which rows those are."""

from __future__ import annotations

from abc import abstractmethod
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from axes_async.conf.validators import OLDEST
from axes_async.management.database import needs_database


class AgeCommand(BaseCommand):
    """Deletes rows that are older than ``--age`` days."""

    @abstractmethod
    def delete(self, age: timedelta) -> int:
        """Delete the rows that are ``age`` or older; return how many."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--age", type=int, default=30, metavar="DAYS", help="how many days rows are kept (default: 30)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        days = options["age"]
        if isinstance(days, bool) or not isinstance(days, int) or not 0 <= days <= OLDEST.days:
            raise CommandError(f"--age is {days!r}; it takes a whole number of days from 0 to {OLDEST.days}.")
        with needs_database():
            gone = self.delete(timedelta(days=days))
        self.stdout.write(f"{gone} logs removed." if gone else "No logs found.")
