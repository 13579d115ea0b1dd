"""The self-test over HTTP: wrong passwords at the login page of the running site, from this machine's own address.

The first guess alone tells which address the site sees. Where that is a proxy's, no more are made: they would lock
everybody out behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from django.shortcuts import resolve_url

from axes_async.client.normalize import canonical_address, canonical_username
from axes_async.conf import AxesSettings, get_settings
from axes_async.conf.networks import parse_address
from axes_async.counters.rules import counters_for
from axes_async.inspection.explain import explain
from axes_async.inspection.login_page import Answer, LoginPage
from axes_async.inspection.login_request import login_request
from axes_async.inspection.selftest import Ended, SelfTest, failures_left
from axes_async.inspection.standings import has_private_store
from axes_async.login.rules_in_force import rules_for

BUSY = 429


class SelfTestHttp(SelfTest):
    """Guesses at ``page``; the processes of the site are others than this one.

    :param address: what the site is to see of this machine; '' if that is not known.
    """

    def __init__(self, page: LoginPage, *, address: str, wait: float, by: str) -> None:
        super().__init__(wait=wait, by=by)
        self.page, self.expected = page, address
        page.agent = self.agent
        self.is_turned_away = False
        """Whether the first guess was."""
        self.seen_name: str | None = None
        """What the site has taken for the name."""

    @property
    def steps(self) -> Sequence[tuple[str, Callable[[], str]]]:
        return (
            ("settings", self.look_at_settings),
            ("store", self.look_at_store),
            ("page", self.look_at_page),
            ("guess", self.guess_once),
            ("broker", self.look_at_broker),
            ("rows", self.look_at_rows),
            ("address", self.look_at_address),
            ("lockout", self.guess_until_locked),
            ("counters", self.look_at_counters),
        )

    def look_at_page(self) -> str:
        self.page.connect()
        answer = self.page.open()
        # What takes JSON alone may refuse to be looked at.
        if answer.status >= 500 or answer.status == 404 or (answer.status != 200 and not self.page.is_json):
            raise Ended(f"{answer.url} answers with status {answer.status}.", stop=True)
        return f"{answer.url} answers with status {answer.status}"

    def guess_once(self) -> str:
        answer = self._guess()
        self.is_turned_away = _is_turned_away(answer, get_settings())
        if answer.status == 403 and "CSRF" in answer.text and not self.is_turned_away:
            token = "its token was sent" if self.page.has_token else "the page had no token"
            raise Ended(f"The CSRF check has refused the guess, and {token}.", stop=True)
        if answer.status >= 500 or answer.status in {404, 405, 415}:
            raise Ended(f"The site answers a wrong password with status {answer.status}.", stop=True)
        self.guesses = 1
        return f"{self.name}: answered with status {answer.status}"

    def without_rows(self) -> str:
        if self.is_turned_away:
            if address := self.logs().values_list("ip_address", flat=True).first():
                return f"The guess was turned away, and not counted: {address} is locked, as axes_explain tells."
            return "The guess was turned away, and has left no row."
        told = super().without_rows()
        would = explain(self.name, self.page.own_address).verdict()
        return f"{told} Has the site other settings? From {self.page.own_address}, these would say: {would}"

    def look_at_address(self) -> str:
        """Compare the address that the site has seen with that of this machine."""
        self.address, self.seen_name = self.attempts().values_list("ip_address", "username").first()
        if self.address is None:
            raise Ended("The site sees no address: is it behind a Unix socket? See AXES_TRUSTED_PROXIES.", stop=True)
        seen, here, settings = parse_address(self.address), parse_address(self.page.own_address), get_settings()
        told = f"the site sees {self.address}"
        wanted = canonical_address(self.expected or self.page.own_address)
        if canonical_address(self.address) == wanted:
            return f"{told}, which is this machine"
        is_proxy = seen is not None and (seen.is_loopback or seen in settings.trusted_proxies)
        if self.expected or is_proxy:
            expected = self.expected or here
            raise Ended(
                f"The site sees {self.address}, and this machine is {expected}: is that a proxy's address? "
                "See AXES_TRUSTED_PROXIES and what the proxy sends. More guesses would lock it, and are not made.",
                stop=True,
            )
        return f"{told}, and this machine is {here} here: right behind a router, wrong if that is a proxy of yours"

    def guess_until_locked(self) -> str:
        settings = get_settings()
        request = login_request(self.address, agent=self.agent)
        rules = rules_for(settings, request, {"username": self.name})
        values = {"username": canonical_username(self.seen_name), "ip_address": canonical_address(self.address or "")}
        counters = counters_for(rules, {**values, "user_agent": self.agent})  # type: ignore[dict-item]
        last = 1 + failures_left(settings, counters, made=1 if has_private_store() else 0)
        self.mute(counters)
        is_turned_away = self.is_turned_away
        for number in range(2, last + 1):
            if is_turned_away:
                break
            answer = self._guess()
            is_turned_away = _is_turned_away(answer, settings)
            self.guesses = number
        if is_turned_away and self.guesses < last:
            raise Ended(f"Guess {self.guesses} was turned away, though the limit was to be reached at guess {last}.")
        answer = self._guess()
        if not _is_turned_away(answer, settings):
            raise Ended(self._never_locked(settings, last, answer))
        if not is_turned_away:
            raise Ended(f"Guess {last} was to be turned away, and guess {last + 1} was the first that was.")
        if settings.enable_access_failure_log and not self.await_rows(self.logs().filter(repeats__gt=0).exists):
            told = "the site looks at passwords of locked clients: AUTHENTICATION_BACKENDS lacks AxesStandaloneBackend"
            raise Ended(f"Turned away at guess {last}, but {told}.")
        return f"turned away at guess {last}, with status {answer.status}"

    def _guess(self) -> Answer:
        self.has_guessed = True
        return self.page.guess(self.name, self.password)

    def _never_locked(self, settings: AxesSettings, last: int, answer: Answer) -> str:
        told = f"Guess {last + 1} was answered with status {answer.status}, though the limit is reached at {last}."
        if settings.only_admin_site:
            return f"{told} AXES_ONLY_ADMIN_SITE is on: only the login page of the admin turns anybody away."
        if self.await_rows(lambda: bool(self.locked())):
            return f"{told} The counters are locked: the site lacks AxesMiddleware, or changes the answer behind it."
        return f"{told} No counter is locked: has the site other rules, or a store of its own in each process?"


def _is_turned_away(answer: Answer, settings: AxesSettings) -> bool:
    """Return whether an answer is that of a lockout.

    One with a status that others may have, too, is told by what our answers have in common.
    """
    if settings.lockout_url is not None and 300 <= answer.status < 400:
        return answer.headers.get("Location", "").startswith(resolve_url(str(settings.lockout_url)))
    is_ours = settings.lockout_callable is not None or answer.headers.get("Cache-Control") == "no-store"
    return answer.status == BUSY or (answer.status == settings.http_response_code and is_ours)
