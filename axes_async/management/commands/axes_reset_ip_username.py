"""``manage.py axes_reset_ip_username``: lift the lockouts of one name from one address."""

from typing import Any

from django.core.management.base import CommandParser

from axes_async.management.reset_command import ResetCommand


class Command(ResetCommand):
    help = "Removes the access attempts of a username from an address and lifts the lockouts they stand for."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ip", metavar="IP", help="the address")
        parser.add_argument("username", metavar="NAME", help="the name")
        super().add_arguments(parser)

    def wanted(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"ip": options["ip"], "username": options["username"]}]
