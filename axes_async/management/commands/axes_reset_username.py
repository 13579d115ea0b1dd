"""``manage.py axes_reset_username``: lift the lockouts of names."""

from django.core.management.base import CommandParser

from axes_async.management.reset_command import ResetCommand


class Command(ResetCommand):
    help = "Removes the access attempts of usernames and lifts the lockouts they stand for."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", nargs="+", metavar="NAME", help="reset the attempts of this name")
        super().add_arguments(parser)
