"""``manage.py axes_selftest``: lock out a guesser that is nobody, and look for its rows."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.core.management.base import CommandError, CommandParser

from axes_async.conf.networks import parse_address
from axes_async.inspection.login_page import LoginPage
from axes_async.inspection.selftest import Link, SelfTest, State
from axes_async.inspection.selftest_here import SelfTestHere
from axes_async.inspection.selftest_http import SelfTestHttp
from axes_async.management.base import AxesCommand
from axes_async.management.reset_command import operator

LONGEST_WAIT = 3600

INTERRUPTED = 130
"""The exit status that shells give a program that Ctrl-C has ended."""

WARNING = """\
Wrong passwords are sent to {url} until they are turned away.
If a rule counts by address alone, nobody can log in from this machine's address during the test."""


class Command(AxesCommand):
    """One line for each link of the chain."""

    help = "Has a guesser that is nobody locked out, looks for its rows, and takes all of it back. Says what is broken."
    requires_system_checks = ()  # Their errors are one of the links.

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--url", help="guess at this login page over HTTP (default: in this process)")
        parser.add_argument(
            "--wait", type=float, default=30, metavar="SECONDS", help="how long rows may take to appear (default: 30)"
        )
        parser.add_argument("--json", action="store_true", help="with --url: send a JSON object, not a form")
        parser.add_argument("--username-field", metavar="NAME", help="with --url: the name's field (default: username)")
        parser.add_argument(
            "--password-field", metavar="NAME", help="with --url: the password's field (default: password)"
        )
        parser.add_argument("--address", help="with --url: the address that the site is to see")
        parser.add_argument(
            "--no-input", "--noinput", action="store_false", dest="interactive", help="with --url: do not ask first"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        test = self._test(options)
        links: list[Link] = []
        try:
            try:
                links.extend(self._tell(link) for link in test.links())
            finally:
                links.append(self._tell(test.clean()))
        except KeyboardInterrupt as error:
            raise CommandError("Interrupted.", returncode=INTERRUPTED) from error
        broken = [link.name for link in links if link.state is State.FAILED]
        if broken:
            raise CommandError(f"Broken: {', '.join(broken)}.")
        skipped = [link.name for link in links if link.state is State.SKIPPED]
        self.stdout.write(f"Nothing is broken; not looked at: {', '.join(skipped)}." if skipped else "All is well.")

    def _test(self, options: dict[str, Any]) -> SelfTest:
        """Return the test that is asked for; raises ``CommandError`` with nothing done."""
        wait, url, address = options["wait"], options["url"], options["address"] or ""
        if not 0 <= wait <= LONGEST_WAIT:
            raise CommandError(f"--wait is {wait:g}; it takes seconds from 0 to {LONGEST_WAIT}.", returncode=2)
        if url is None:
            named = ("json", "username_field", "password_field", "address")
            if given := [f"--{name.replace('_', '-')}" for name in named if options[name]]:
                raise CommandError(f"{', '.join(given)}: only with --url.", returncode=2)
            return SelfTestHere(wait=wait, by=operator())
        if not _is_web_address(url):
            raise CommandError(f"--url is {url!r}; it takes the address of a page, with http or https.", returncode=2)
        if address and parse_address(address) is None:
            raise CommandError(f"--address is {address!r}; it takes an IP address.", returncode=2)
        self._require_consent(url, interactive=options["interactive"])
        page = LoginPage(
            url,
            username_field=options["username_field"] or "username",
            password_field=options["password_field"] or "password",
            is_json=options["json"],
            csrf_cookie=django_settings.CSRF_COOKIE_NAME,
        )
        return SelfTestHttp(page, address=address, wait=wait, by=operator())

    def _require_consent(self, url: str, *, interactive: bool) -> None:
        self.stderr.write(WARNING.format(url=url), style_func=self.style.WARNING)
        if not interactive:
            return
        try:
            answer = input("Go on? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in {"y", "yes"}:
            raise CommandError("Nothing was done.", returncode=2)

    def _tell(self, link: Link) -> Link:
        styles = {State.OK: self.style.SUCCESS, State.FAILED: self.style.ERROR, State.SKIPPED: self.style.WARNING}
        self.stdout.write(f"{link.name:10}{styles[link.state](f'{link.state:9}')}{link.found}")
        self.stdout.flush()
        return link


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
