"""``manage.py axes_dead_letters``: events that could not be written."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from axes_async.errors import AxesError
from axes_async.stores.contract import DeadLetter, OutboxStore
from axes_async.stores.factory import get_store
from axes_async.text import printable

PORTION = 500


class Command(BaseCommand):
    """One line an event: position, error and entry."""

    help = "Shows the events that could not be written, with the error of each."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--retry", action="store_true", help="put them back, to be written by the next drain")

    def handle(self, *args: Any, **options: Any) -> None:
        """Show them, or put them back; what is no event stays."""
        store = get_store()
        if not isinstance(store, OutboxStore):
            raise CommandError("The store has no outbox; events that cannot be written are in the log, as errors.")
        shown = kept = 0
        try:
            after = "0-0"
            while letters := store.dead_letters(after, PORTION):
                for letter in letters:
                    shown += 1
                    kept += not (options["retry"] and self._put_back(store, letter))
                    entry = letter.entry.decode(errors="backslashreplace")
                    self.stdout.write(f"{letter.position}\t{printable(letter.error)}\t{printable(entry)}")
                after = letters[-1].position
        except AxesError as error:
            raise CommandError(f"The store cannot be read: {error}") from error
        if options["retry"]:
            self.stdout.write(f"{shown - kept} put back, {kept} kept.")
        elif not shown:
            self.stdout.write("No dead letters.")

    @staticmethod
    def _put_back(store: OutboxStore, letter: DeadLetter) -> bool:
        try:
            body, outcome = json.loads(letter.entry)
        except (ValueError, TypeError):
            return False
        store.put_back(letter, body, outcome)
        return True
