"""``manage.py axes_reset_logs``: delete old rows of the log of logins and logouts."""

from functools import partial

from axes_async.management.base import AgeCommand
from axes_async.models import AccessLog
from axes_async.tasks.purge import delete_older


class Command(AgeCommand):
    help = "Deletes the rows of the log of logins and logouts that are older than so many days."
    delete = staticmethod(partial(delete_older, AccessLog))
