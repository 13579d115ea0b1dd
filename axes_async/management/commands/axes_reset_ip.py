"""``manage.py axes_reset_ip``: lift the lockouts of addresses."""

from django.core.management.base import CommandParser

from axes_async.management.reset_command import ResetCommand


class Command(ResetCommand):
    help = "Removes the access attempts of addresses and lifts the lockouts they stand for."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ip", nargs="+", metavar="IP", help="reset the attempts of this address")
        super().add_arguments(parser)
