"""``manage.py axes_reset_username``: lift the lockouts of names."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from axes_async.management.resetting import ResetCommand


class Command(ResetCommand):
    """Each name is a reset of its own."""

    help = "Removes the access attempts of usernames and lifts the lockouts they stand for."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", nargs="+", metavar="NAME", help="reset the attempts of this name")
        super().add_arguments(parser)

    def wanted(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"username": name} for name in options["username"]]
