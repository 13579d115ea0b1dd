"""``manage.py axes_reset_failure_logs``: delete old rows of the log of failures."""

from functools import partial

from axes_async.management.base import AgeCommand
from axes_async.models import AccessFailureLog
from axes_async.tasks.purge import delete_older


class Command(AgeCommand):
    help = "Deletes the rows of the log of failures that are older than so many days."
    delete = staticmethod(partial(delete_older, AccessFailureLog))
