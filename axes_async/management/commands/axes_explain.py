"""``manage.py axes_explain``: what a login of a name from an address would meet now, and why."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from axes_async.inspection.explain import explain
from axes_async.inspection.explanation import standing_words
from axes_async.management.base import AxesCommand


class Command(AxesCommand):
    """Says how name and address count, how each counter stands in store and rows, and what follows."""

    help = "Explains what a login attempt of a username, from an address, would meet now, and why. Changes nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", nargs="?", metavar="NAME", help="the name that is tried")
        parser.add_argument("--ip", metavar="ADDRESS", help="the address that it is tried from")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            seen = explain(options["username"], options["ip"])
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error
        if options["json"]:
            self.stdout.write(json.dumps(seen.as_json()))
            return
        for sentence in seen.worked_out():
            self.stdout.write(sentence)
        for counted in seen.counters:
            self.stdout.write(f"\n{counted.words}")
            for name, standing in counted.both():
                self.stdout.write(f"  {name:6}{'-' if standing is None else standing_words(standing)}")
        if seen.others:
            self.stdout.write(f"\nOther lockouts of this name or address: {'; '.join(seen.others)}")
        self.stdout.write(f"\n{seen.verdict()}")
