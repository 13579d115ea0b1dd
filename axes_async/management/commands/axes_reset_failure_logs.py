"""``manage.py axes_reset_failure_logs``: delete old rows of the log of failures."""

from axes_async.management.age_command import AgeCommand
from axes_async.models import AccessFailureLog


class Command(AgeCommand):
    help = "Deletes the rows of the log of failures that are older than so many days."
    model = AccessFailureLog
