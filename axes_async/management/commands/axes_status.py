"""``manage.py axes_status``: how things stand."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser

from axes_async.clock import as_datetime, now_ms
from axes_async.management.base import AxesCommand
from axes_async.stores.contract import OutboxStore
from axes_async.stores.factory import get_store
from axes_async.tasks.status import status


class Command(AxesCommand):
    """A line for each fact, then one for each problem."""

    help = "Shows how store, outbox, broker, drain and expiry stand; exits with 1 when something needs a person."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument("--acknowledge", action="store_true", help="start the number of lost events over")

    def handle(self, *args: Any, **options: Any) -> None:
        store = get_store()
        if options["acknowledge"]:
            gone = store.forget_overflow() if isinstance(store, OutboxStore) else 0
            self.stderr.write(f"{gone} events had found no room in the outbox. Their number starts over.")
        now, seen = as_datetime(now_ms()), status()
        problems = list(seen.problems(now))
        if options["json"]:
            self.stdout.write(json.dumps({**asdict(seen), "problems": problems}, default=datetime.isoformat))
        else:
            for name, value in seen.facts():
                self.stdout.write(f"{name:16}{value}")
            for problem in problems:
                self.stdout.write(self.style.ERROR(problem))
        if problems:
            sys.exit(1)
