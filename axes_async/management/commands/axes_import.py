"""``manage.py axes_import``: move over from django-axes or django-defender."""

from __future__ import annotations

from collections import Counter as Sums
from contextlib import suppress
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections

from axes_async.clock import as_datetime, now_ms
from axes_async.errors import StoreUnavailable
from axes_async.inspection.standings import has_private_store
from axes_async.management.base import AxesCommand
from axes_async.models import AttemptCounter, database
from axes_async.stores.factory import get_store
from axes_async.tasks.drain import drain_to_end
from axes_async.tasks.importing.columns import LeftOut
from axes_async.tasks.importing.importer import OUTCOMES, import_rows, rows_left
from axes_async.tasks.importing.sources import Source, find_sources
from axes_async.tasks.projection.resets import delete_void
from axes_async.tasks.sync import sync_store


class Command(AxesCommand):
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
            known = ", ".join(connections)
            raise CommandError(f"DATABASES has no entry {options['database']!r}; it has {known}.", returncode=2)
        sources = find_sources(options["database"], options["package"])
        if not options["dry_run"]:
            # What the outboxes hold goes first, if they can be read; and what an interrupted reset of everything left.
            with suppress(StoreUnavailable):
                drain_to_end(get_store())
            delete_void(database())
        left_out = 0
        try:
            for source in sources:
                left_out += self._import(source, dry_run=options["dry_run"])
        finally:
            if not options["dry_run"]:
                self._sync()
        if left_out:
            raise CommandError(f"{left_out} rows were left out. Repair them, and run this again: it looks for them.")

    def _import(self, source: Source, *, dry_run: bool) -> int:
        """Import a table; return how many of its rows were left out."""
        total, read, became, left_out = rows_left(source), 0, Sums[str](), list[LeftOut]()
        shown = self.stderr.isatty()
        try:
            for portion in import_rows(source, dry_run=dry_run):
                read, became = read + portion.rows, became + portion.became
                left_out += portion.left_out
                if shown:
                    self.show_bar(f"{source.table:26}", read / max(total, 1), f"{read:,} of {max(read, total):,}")
        finally:
            if shown and read:
                self.stderr.write("\n", style_func=str)
            copied = ", ".join(f"{became[name]} {name}" for name in OUTCOMES if became[name]) or "nothing to keep"
            told = f"{read} rows{' would be' if dry_run else ''} read: {copied}." if read else "nothing new."
            self.stdout.write(f"{source.table}: {told}")
            for row in left_out:
                self.stderr.write(f"{source.table}: row {row.pk} {row.why}")
        return len(left_out)

    def _sync(self) -> None:
        """Have the store take the counters over, and say how many are locked."""
        done = False
        try:
            done = sync_store(get_store())
        except StoreUnavailable as error:
            self.stderr.write(f"The store cannot be reached ({error}).")
        if has_private_store():
            self.stderr.write("Each process has a cache of its own, so no other process knows the imported counters.")
        if not done:
            self.stderr.write("The counters are in the database. The next sync writes them into the store.")
        locked = AttemptCounter.objects.using(database()).locked(as_datetime(now_ms())).count()
        self.stdout.write(f"{locked} lockouts in force.")
