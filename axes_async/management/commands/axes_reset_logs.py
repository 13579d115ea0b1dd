"""``manage.py axes_reset_logs``: delete old rows of the log of logins and logouts."""

from axes_async.management.age_command import AgeCommand
from axes_async.models import AccessLog


class Command(AgeCommand):
    help = "Deletes the rows of the log of logins and logouts that are older than so many days."
    model = AccessLog
