"""``manage.py axes_reset``: lift lockouts."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from axes_async.management.reset_command import ResetCommand


class Command(ResetCommand):
    help = "Removes access attempts and lifts the lockouts they stand for: all, or those of addresses and usernames."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ip", nargs="*", metavar="IP", help="reset the attempts of this address")
        parser.add_argument(
            "--username", nargs="+", action="extend", default=[], metavar="NAME", help="reset the attempts of this name"
        )
        super().add_arguments(parser)

    def wanted(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        return super().wanted(options) or [{}]  # Without a value, everything.
