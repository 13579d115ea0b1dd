"""``manage.py axes_dead_letters``: events that could not be written."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from axes_async.counters.events import AttemptEvent
from axes_async.management.base import AxesCommand
from axes_async.stores.contract import DeadLetter, OutboxStore
from axes_async.stores.factory import get_store
from axes_async.text import printable

PORTION = 500


class Command(AxesCommand):
    """One line for each event: position, error and entry, with a tab between."""

    help = "Shows the events that could not be written, with the error of each."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--retry", action="store_true", help="put them back, to be written by the next drain")

    def handle(self, *args: Any, **options: Any) -> None:
        store = get_store()
        if not isinstance(store, OutboxStore):
            raise CommandError("The store has no outbox; events that cannot be written are in the log, as errors.")
        shown, put_back, after = 0, 0, "0-0"
        while letters := store.dead_letters(after, PORTION):
            for letter in letters:
                shown += 1
                put_back += options["retry"] and _put_back(store, letter)
                entry = letter.entry.decode(errors="backslashreplace")
                self.stdout.write(f"{letter.position}\t{printable(letter.error)}\t{printable(entry)}")
            after = letters[-1].position
        if options["retry"]:
            self.stdout.write(f"{put_back} put back, {shown - put_back} kept.")
        elif not shown:
            self.stdout.write("No dead letters.")


def _put_back(store: OutboxStore, letter: DeadLetter) -> bool:
    """Put an event back into the outbox; return False for an entry that is none, which stays."""
    try:
        AttemptEvent.parse(letter.entry)
    except ValueError:
        return False
    return store.put_back(letter)
