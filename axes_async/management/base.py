"""What every command of ours does: an error is one clear line, and a reader that has seen enough is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from kombu.exceptions import KombuError

from axes_async.conf.validators import OLDEST
from axes_async.errors import AxesError, StoreUnavailable


class AxesCommand(BaseCommand):
    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            told: str | None = super().execute(*args, **options)
            self.stdout.flush()
            return told
        except BrokenPipeError:
            # Such as `| head`. Python flushes once more at its exit, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None
        except Error as error:
            raise CommandError(f"The database cannot be used: {error}") from error
        except StoreUnavailable as error:
            raise CommandError(f"The store cannot be used: {error}") from error
        except KombuError as error:
            raise CommandError(f"The broker takes no messages: {error}") from error
        except AxesError as error:
            raise CommandError(str(error)) from error


class AgeCommand(AxesCommand):
    """Deletes rows that are older than ``--age`` days, once, as the purge does it regularly."""

    delete: Callable[[timedelta], int]
    """Deletes the rows that are so old or older; returns how many."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--age", type=int, default=30, metavar="DAYS", help="how many days rows are kept (default: 30)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 <= options["age"] <= OLDEST.days:
            takes = f"a whole number of days from 0 to {OLDEST.days}"
            raise CommandError(f"--age is {options['age']}; it takes {takes}.", returncode=2)
        gone = self.delete(timedelta(days=options["age"]))
        self.stdout.write(f"{gone} logs removed." if gone else "No logs found.")
