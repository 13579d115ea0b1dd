"""What the commands that lift lockouts share: they check all arguments first, then count, queue or reset."""

from __future__ import annotations

import os
from collections.abc import Iterable
from getpass import getuser
from typing import Any

from django.core.management.base import CommandError, CommandParser

from axes_async.client.normalize import ROW_LENGTH
from axes_async.conf import get_settings
from axes_async.delivery import publisher
from axes_async.management.base import AxesCommand
from axes_async.tasks.reset import check_arguments, count, reset

BROKER_TIMEOUT = 5.0
"""Seconds to wait for a broker, each to connect and to answer."""


class ResetCommand(AxesCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say how many attempts would go, and reset nothing")
        parser.add_argument("--queue", action="store_true", help="have a Celery worker do it, and print the task's id")
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; kept with the reset, as is your name")

    def wanted(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the arguments of each reset: each address and each name that the command line has is one."""
        return [{name: value} for name in ("ip", "username") for value in options.get(name, [])]

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = self.wanted(options)
        noted = {"reason": options["reason"], "by": operator()}
        if len(options["reason"]) > ROW_LENGTH:
            takes = f"it takes {ROW_LENGTH}"
            raise CommandError(f"--reason has {len(options['reason'])} characters; {takes}.", returncode=2)
        try:
            for arguments in wanted:
                check_arguments(**arguments)
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error
        if options["dry_run"]:
            self._say(sum(count(**arguments) for arguments in wanted), "would be removed")
        elif options["queue"]:
            self._queue({**arguments, **noted} for arguments in wanted)
        else:
            self._say(sum(reset(**arguments, **noted) for arguments in wanted), "removed")

    def _say(self, attempts: int, what: str) -> None:
        self.stdout.write(f"{attempts} attempts {what}." if attempts else "No attempts found.")

    def _queue(self, wanted: Iterable[dict[str, Any]]) -> None:
        queue = get_settings().celery_queue
        with publisher.bounded_connection(BROKER_TIMEOUT) as connection:
            for arguments in wanted:
                sent = reset.apply_async(kwargs=arguments, queue=queue, connection=connection, retry=False)
                self.stdout.write(sent.id)


def operator() -> str:
    """Return the name of the operating system's user, or the number of one that has no name, as in a container."""
    try:
        return getuser()
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else ""
