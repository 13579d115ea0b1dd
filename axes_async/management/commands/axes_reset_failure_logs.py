"""``manage.py axes_reset_failure_logs``: delete old rows of the log of failures."""

from __future__ import annotations

from datetime import timedelta

from axes_async.management.aging import AgeCommand
from axes_async.tasks.purge import delete_failure_logs


class Command(AgeCommand):
    """Does once what the purge does regularly, in the same portions."""

    help = "Deletes the rows of the log of failures that are older than so many days."

    def delete(self, age: timedelta) -> int:
        """Delete ``AccessFailureLog`` rows that are ``age`` or older; return how many."""
        return delete_failure_logs(age)
