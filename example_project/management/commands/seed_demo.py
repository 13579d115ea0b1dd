"""`manage.py seed_demo`: makes the demo user, or leaves one that is there as it is."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from example_project import demo


class Command(BaseCommand):
    """Make the demo user unless there is one."""

    help = "Makes a superuser with a well-known password for the demo. Running it again changes nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the user and say how to log in."""
        if not settings.DEBUG:
            raise CommandError("The demo user has a password that everyone can read: not made with DJANGO_DEBUG off.")
        user = User.objects.filter(username=demo.USERNAME).first()
        if user is None:
            user = User.objects.create_superuser(demo.USERNAME, password=demo.PASSWORD)
        if user.check_password(demo.PASSWORD):
            self.stdout.write(f"Log in as {demo.USERNAME} with the password {demo.PASSWORD}")
        else:
            self.stdout.write(f"There is a user {demo.USERNAME} with another password; it was left as it is.")
