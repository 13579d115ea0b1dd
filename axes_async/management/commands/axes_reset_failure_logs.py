"""``manage.py axes_reset_failure_logs``: delete old rows of the log of failures."""

from axes_async.management.base import AgeCommand
from axes_async.tasks.purge import delete_failure_logs


class Command(AgeCommand):
    help = "Deletes the rows of the log of failures that are older than so many days."
    delete = staticmethod(delete_failure_logs)
