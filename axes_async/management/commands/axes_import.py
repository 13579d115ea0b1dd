"""``manage.py axes_import``: move over from django-axes or django-defender."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from axes_async.errors import AxesError, StoreUnavailable
from axes_async.management.progress import Progress
from axes_async.stores.cache import CacheStore
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store
from axes_async.tasks.drain import BATCH, drain_batch
from axes_async.tasks.importing.importer import Carried, carry, left_to_carry
from axes_async.tasks.importing.sources import Source, find_sources
from axes_async.tasks.importing.tell import locked_counters, tell_store


class Command(BaseCommand):
    """One line for each table, then one for the lockouts."""

    help = (
        "Copies attempts, logs and failures from the tables of django-axes and django-defender, and with them the "
        "lockouts. A second run copies what is new; one that was stopped goes on."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "--from", choices=("axes", "defender"), dest="package", help="whose tables (default: whichever are there)"
        )
        parser.add_argument(
            "--database",
            default=DEFAULT_DB_ALIAS,
            metavar="ALIAS",
            help=f"the entry of DATABASES that they are in (default: {DEFAULT_DB_ALIAS})",
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would be copied, and change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        """Copy, then have the store take the counters over."""
        if options["database"] not in connections:
            raise CommandError(f"DATABASES has no entry {options['database']!r}; it has {', '.join(connections)}.")
        try:
            sources = find_sources(options["database"], options["package"])
        except (AxesError, DatabaseError) as error:
            raise CommandError(str(error)) from error
        if options["dry_run"]:
            for source in sources:
                self._copy(source, dry_run=True)
            return
        self._write_the_outbox()
        try:
            for source in sources:
                self._copy(source, dry_run=False)
        finally:
            self._tell()

    def _copy(self, source: Source, *, dry_run: bool) -> None:
        carried = Carried()
        bar = Progress(self.stderr, source.table, left_to_carry(source))
        try:
            for rows in carry(source, carried, dry_run=dry_run):
                bar.advance(rows)
        finally:
            bar.finish()
            self.stdout.write(f"{source.table}: {_told(carried, dry_run=dry_run)}")

    @staticmethod
    def _write_the_outbox() -> None:
        """Have the rows know what the store has counted so far, as far as it can be asked."""
        store = get_store()
        try:
            while isinstance(store, OutboxStore) and drain_batch(store) == BATCH:
                pass
        except StoreUnavailable:
            return

    def _tell(self) -> None:
        """Have the store take the counters over, and say how many are locked."""
        try:
            told = tell_store()
        except StoreUnavailable as error:
            told = False
            self.stderr.write(f"The store cannot be reached ({error}).")
        store = get_store()
        if isinstance(store, CacheStore) and not store.shared:
            self.stderr.write("Each process has a cache of its own, so that no other one hears of the counters.")
        if not told:
            self.stderr.write("The counters are in the database. The next drain has the store take them over.")
        locked = sum(1 for _ in locked_counters())
        self.stdout.write(f"{locked} lockouts in force.")


def _told(carried: Carried, *, dry_run: bool) -> str:
    if not carried.read:
        return "nothing new."
    parts = {
        "attempts": carried.attempts,
        "attempts whose cool-off is over": carried.cooled_off,
        "logins": carried.logins,
        "failures": carried.failures,
        "log rows past their age": carried.too_old,
    }
    copied = ", ".join(f"{number} {name}" for name, number in parts.items() if number) or "nothing to keep"
    return f"{carried.read} rows{' would be' if dry_run else ''} read: {copied}."
