"""``manage.py axes_export``: the record of failures, logins and unlocks, for auditors."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_naive

from axes_async.clock import as_datetime, as_ms, now_ms
from axes_async.inspection.export import FORMATS, KINDS, Record, records
from axes_async.management.base import AxesCommand

SHOWN_EVERY = 1000
"""Rows between two looks of the progress bar."""


class Command(AxesCommand):
    """One line for each row, the oldest first; all times are in UTC."""

    help = "Exports the record of failures, logins and unlocks: CSV, JSON lines, ECS or OCSF."

    def add_arguments(self, parser: CommandParser) -> None:
        when = "a date, or a date with time (2026-11-25T13:00:00Z); UTC unless it says otherwise"
        parser.add_argument("--from", dest="since", metavar="TIME", help=f"the first time: {when}")
        parser.add_argument(
            "--to", dest="until", metavar="TIME", help="the time before which rows end, in the same way"
        )
        parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), help="what (default: all of it)")
        parser.add_argument("--format", choices=FORMATS, default="csv", help="of the lines (default: csv)")
        parser.add_argument("--output", metavar="FILE", help="a new file to write to (default: standard output)")

    def handle(self, *args: Any, **options: Any) -> None:
        since, until = (_time(f"--{name}", options[key]) for name, key in (("from", "since"), ("to", "until")))
        if since is not None and until is not None and since >= until:
            raise CommandError("--from is not before --to.", returncode=2)
        kinds = list(dict.fromkeys(options["kind"]))
        rows = (row for kind in kinds for row in self._shown(kind, records(kind, since, until), since, until))
        lines = FORMATS[options["format"]](rows)
        if options["output"] is None:
            for line in lines:
                self.stdout.write_utf8(line)
            return
        self._write(Path(options["output"]), lines)

    def _write(self, path: Path, lines: Iterator[str]) -> None:
        try:
            out = path.open("x", encoding="utf-8", newline="")
        except OSError as error:
            raise CommandError(f"--output: {error}", returncode=2) from error
        try:
            with out:
                out.writelines(lines)
        except BaseException as error:
            path.unlink()  # Half a record looks like a whole one.
            if isinstance(error, OSError):
                raise CommandError(f"--output: {error}") from error
            raise

    def _shown(
        self, kind: str, rows: Iterator[Record], since: datetime | None, until: datetime | None
    ) -> Iterator[Record]:
        """Pass ``rows`` on, and show on a terminal how far in time they are: to count them first takes as long."""
        shown, number = self.stderr.isatty(), 0
        first, last = None if since is None else as_ms(since), now_ms() if until is None else as_ms(until)
        for number, row in enumerate(rows, start=1):
            yield row
            if shown and number % SHOWN_EVERY == 1:
                at = round(datetime.fromisoformat(row["time"]).timestamp() * 1000)
                first = at if first is None else first
                self.show_bar(f"{kind:10}", (at - first) / max(last - first, 1), f"{number:,}")
        if shown:
            self.show_bar(f"{kind:10}", 1, f"{number:,}")
            self.stderr.write("\n", style_func=str)


def _time(option: str, text: str | None) -> datetime | None:
    """Return the time that an option names, as rows have it."""
    if text is None:
        return None
    try:
        moment = parse_datetime(text)
        if moment is None and (date := parse_date(text)) is not None:
            moment = datetime.combine(date, time())
        if moment is not None:
            return as_datetime(as_ms(moment.replace(tzinfo=UTC) if is_naive(moment) else moment))
    except (ValueError, OverflowError):  # The year 1 begins east of Greenwich before there are years.
        pass
    raise CommandError(f"{option} is {text!r}; it takes a date, or a date with a time.", returncode=2)
