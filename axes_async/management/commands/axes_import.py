"""``manage.py axes_import``: move over from django-axes or django-defender."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from axes_async.clock import as_datetime, now_ms
from axes_async.errors import AxesError, StoreUnavailable
from axes_async.management.database import needs_database
from axes_async.management.progress import Progress
from axes_async.models import AttemptCounter, database
from axes_async.stores.cache import CacheStore
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store
from axes_async.tasks.drain import drain_to_end
from axes_async.tasks.importing.importer import Totals, import_rows, rows_left
from axes_async.tasks.importing.sources import Source, find_sources
from axes_async.tasks.projection.resets import delete_void
from axes_async.tasks.sync import sync_store


class Command(BaseCommand):
    """Prints one line for each table, then one for the lockouts."""

    help = (
        "Copies attempts, logs and failures from the tables of django-axes and django-defender, and with them the "
        "lockouts. A second run copies what is new; one that was stopped goes on."
    )

    def add_arguments(self, parser: CommandParser) -> None:
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
        if options["database"] not in connections:
            raise CommandError(f"DATABASES has no entry {options['database']!r}; it has {', '.join(connections)}.")
        try:
            sources = find_sources(options["database"], options["package"])
        except (AxesError, DatabaseError) as error:
            raise CommandError(str(error)) from error
        with needs_database():
            if options["dry_run"]:
                for source in sources:
                    self._import(source, dry_run=True)
                return
            _prepare()
            try:
                for source in sources:
                    self._import(source, dry_run=False)
            finally:
                self._sync()

    def _import(self, source: Source, *, dry_run: bool) -> None:
        totals = Totals()
        bar = Progress(self.stderr, source.table, rows_left(source))
        try:
            for rows in import_rows(source, totals, dry_run=dry_run):
                bar.advance(rows)
        finally:
            bar.finish()
            self.stdout.write(f"{source.table}: {_summary(totals, dry_run=dry_run)}")

    def _sync(self) -> None:
        """Have the store take the counters over, and say how many are locked."""
        store = get_store()
        try:
            done = sync_store(store)
        except StoreUnavailable as error:
            done = False
            self.stderr.write(f"The store cannot be reached ({error}).")
        if isinstance(store, CacheStore) and not store.shared:
            self.stderr.write("Each process has a cache of its own, so no other process knows the imported counters.")
        if not done:
            self.stderr.write("The counters are in the database. The next sync writes them into the store.")
        locked = AttemptCounter.objects.using(database()).locked(as_datetime(now_ms())).count()
        self.stdout.write(f"{locked} lockouts in force.")


def _prepare() -> None:
    """Write what the outboxes hold, if they can be read, and finish a reset of everything that was interrupted."""
    store = get_store()
    with suppress(StoreUnavailable):
        drain_to_end(store if isinstance(store, OutboxStore) else None)
    delete_void(database())


def _summary(totals: Totals, *, dry_run: bool) -> str:
    if not totals.read:
        return "nothing new."
    parts = {
        "attempts": totals.attempts,
        "attempts whose cool-off is over": totals.cooled_off,
        "logins": totals.logins,
        "failures": totals.failures,
        "log rows past their age": totals.too_old,
    }
    copied = ", ".join(f"{number} {name}" for name, number in parts.items() if number) or "nothing to keep"
    return f"{totals.read} rows{' would be' if dry_run else ''} read: {copied}."
