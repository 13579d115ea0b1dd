"""``manage.py axes_reset_ip``: lift the lockouts of addresses."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from axes_async.management.resetting import ResetCommand


class Command(ResetCommand):
    """Each address is a reset of its own."""

    help = "Removes the access attempts of addresses and lifts the lockouts they stand for."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ip", nargs="+", metavar="IP", help="reset the attempts of this address")
        super().add_arguments(parser)

    def wanted(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"ip": address} for address in options["ip"]]
