"""`manage.py simulate_attack`: guesses passwords at the running site and tells what came of it."""

import os
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db.models import Q
from django.utils import timezone
from tqdm import tqdm

from axes_async.models import AccessAttempt, AccessFailureLog
from example_project import demo
from example_project.attack import Answer, Attacker, Outcome, loopback_origin
from example_project.paths import MANAGE


class Command(BaseCommand):
    """Guess, try the right password while locked out, wait for the worker, show its rows."""

    help = "Guesses passwords at the running site (this machine only) and shows what the lockout let through."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the site, the account and the size of the attack."""
        parser.add_argument("--url", default=f"http://127.0.0.1:{os.environ.get('PORT') or 8000}")
        parser.add_argument("--username", default=demo.USERNAME)
        parser.add_argument("--password", default=demo.PASSWORD, help="the right one, tried once after the guesses")
        parser.add_argument("--guesses", type=int, default=20, help="how many wrong passwords to try")
        parser.add_argument("--parallel", type=int, default=10, help="how many of them at once")
        parser.add_argument("--endpoint", choices=["json", "html"], default="json", help="which login to attack")
        parser.add_argument("--wait", type=float, default=15, help="seconds to wait for the worker's rows at most")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the attack. Raises `CommandError` for a wrong option, a site that is down and a lockout that leaks."""
        if options["guesses"] < 1 or options["parallel"] < 1:
            raise CommandError("--guesses and --parallel take a whole number from 1 up.")
        try:
            origin = loopback_origin(options["url"])
        except ValueError as error:
            raise CommandError(str(error)) from None
        attacker = Attacker(origin, options["endpoint"])
        try:
            attacker.look()
        except requests.RequestException:
            raise CommandError(f"No site answers at {origin}. `make run` starts it; --url names another.") from None
        username, parallel = options["username"], min(options["parallel"], options["guesses"])
        passwords = [f"wrong-guess-{number}" for number in range(1, options["guesses"] + 1)]
        started = timezone.now()
        before = dict(AccessAttempt.objects.filter(username=username).values_list("pk", "failures_since_start"))
        guesses = attacker.guess_all(username, passwords, parallel)
        try:
            answers = list(tqdm(guesses, total=len(passwords), desc="Guessing", unit="guess", leave=False))
            final = attacker.guess(username, options["password"])
        except requests.RequestException as error:
            raise CommandError(f"The site at {origin} stopped answering ({type(error).__name__}).") from None
        self._tell_answers(answers, final)
        self._tell_rows(username, started, before, options["wait"])
        if final.outcome is Outcome.LOGGED_IN and any(answer.outcome is Outcome.DENIED for answer in answers):
            raise CommandError("The right password was let in during a lockout.")

    def _tell_answers(self, answers: Sequence[Answer], final: Answer) -> None:
        self.stdout.write(f"{len(answers)} wrong passwords were sent. The answers:")
        found = Counter(answer.outcome for answer in answers)
        self._table(["answer", "guesses"], [(outcome, found[outcome]) for outcome in Outcome if found[outcome]])
        until = f"for {final.retry_after} more seconds" if final.retry_after else "until a reset"
        verdict = {
            Outcome.DENIED: f"denied: this client is locked out {until}. `{MANAGE} axes_reset` lifts it.",
            Outcome.LOGGED_IN: "logged in: the guesses did not reach the limit.",
            Outcome.WRONG: "refused as wrong; is it the right one? (--password)",
        }.get(final.outcome, f"answered with status {final.status}.")
        self.stdout.write(f"\nThen the right password: {verdict}")

    def _tell_rows(self, username: str, started: datetime, before: dict[int, int], wait: float) -> None:
        # A denial before the credentials were read has no username.
        mine = Q(username=username) | Q(username=None)
        failures = AccessFailureLog.objects.filter(mine, attempt_time__gte=started)
        if not _settled(failures, wait):
            self.stdout.write(f"\nNo row came within {wait:g} seconds. Are the worker and beat running?")
            return
        attempts = AccessAttempt.objects.filter(username=username, attempt_time__gte=started).order_by("attempt_time")
        # A row of before this attack counts on, unless it cooled off and began anew.
        earlier = [before.get(row.pk, 0) if row.first_attempt_time < started else 0 for row in attempts]
        checked = sum(row.failures_since_start for row in attempts) - sum(earlier)
        self.stdout.write(f"\nThe password was checked for {checked} of the guesses; a client is locked out at")
        self.stdout.write(
            f"{settings.AXES_FAILURE_LIMIT} failures, and the guess that reaches that is already answered with 429."
        )
        self.stdout.write("\nAccessAttempt, written by the worker: a row for each client.")
        self._table(
            ["last failure", "username", "address", "failures", "lasts until"],
            [
                (
                    _clock(row.attempt_time),
                    row.username,
                    row.ip_address,
                    row.failures_since_start,
                    _clock(row.expires_at) if row.expires_at else "a reset",
                )
                for row in attempts
            ],
        )
        self.stdout.write(
            "\nAccessFailureLog, written by the worker: a row for each failure, and for the first denials."
        )
        self._table(
            ["attempt", "username", "address", "path", "locked out", "denials so far"],
            [
                (
                    _clock(row.attempt_time),
                    row.username or "-",
                    row.ip_address,
                    row.path_info,
                    "yes" if row.locked_out else "no",
                    row.repeats or "",
                )
                for row in failures.order_by("attempt_time", "pk")
            ],
        )

    def _table(self, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        lines = [list(heads), *([str(cell) for cell in row] for row in rows)]
        if len(lines) == 1:
            self.stdout.write("  none")
            return
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
        for line in lines:
            self.stdout.write("  " + "  ".join(map(str.ljust, line, widths)).rstrip())


def _settled(rows: Any, wait: float) -> bool:
    """Wait until there are rows and no more come for a second; False when there are none after `wait` seconds."""
    deadline = time.monotonic() + wait
    count, since = 0, time.monotonic()
    while time.monotonic() < deadline:
        now = rows.count()
        if now != count:
            count, since = now, time.monotonic()
        elif count and time.monotonic() - since > 1:
            break
        time.sleep(0.2)
    return count > 0


def _clock(moment: datetime) -> str:
    return f"{timezone.localtime(moment):%H:%M:%S.%f}"[:-3]
