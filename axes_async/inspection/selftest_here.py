"""The self-test in this process: a guesser from an address that no client has, through the site's backends."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv6Address

from django.contrib.auth import authenticate

from axes_async.client.exemptions import Exemption, exemption_of
from axes_async.client.identity import Client
from axes_async.conf import AxesSettings, get_settings
from axes_async.counters.rules import Counter
from axes_async.inspection.explain import setting_behind
from axes_async.inspection.login_request import login_request
from axes_async.inspection.selftest import Ended, SelfTest, State, failures_left
from axes_async.login.reservation import release
from axes_async.login.state import AxesState, state_of
from axes_async.login.steps import client_and_counters
from axes_async.stores.results import Verdict

DOCUMENTATION = int(IPv6Address("2001:db8::")), 32
"""2001:db8::/32, which nobody is reached at (RFC 3849). Its IPv4 sibling is 192.0.2.0/24 (RFC 5737)."""


class SelfTestHere(SelfTest):
    """Guesses as a login view does, with ``authenticate()``; no middleware is asked."""

    @property
    def steps(self) -> Sequence[tuple[str, Callable[[], str]]]:
        return (
            ("settings", self.look_at_settings),
            ("store", self.look_at_store),
            ("guesser", self.guess_until_locked),
            ("broker", self.look_at_broker),
            ("rows", self.look_at_rows),
            ("counters", self.look_at_counters),
        )

    @property
    def own_address(self) -> str | None:
        return self.address if self.address and ":" in self.address else None

    def guess_until_locked(self) -> str:
        settings = get_settings()
        counters = self._choose_address(settings)
        limit = failures_left(settings, counters)
        self.mute(counters)
        for number in range(1, limit + 1):
            state = self._guess()
            if number == 1 and (state.attempt is None or state.attempt.verdict is None) and not state.unavailable:
                raise Ended(
                    "The password was looked at without a reservation: AUTHENTICATION_BACKENDS lacks "
                    "axes_async.backends.AxesStandaloneBackend, and locked clients go on guessing.",
                    stop=True,
                )
            _require_let_in(state, number, limit)
            if state.locked_out is not (number == limit):
                raise Ended(f"The guesser is {'' if state.locked_out else 'not '}locked at guess {number} of {limit}.")
        state = self._guess()
        if state.attempt is None or state.attempt.verdict is not Verdict.LOCKED:
            raise Ended(f"Guess {limit + 1} was not turned away, though the limit is {limit}.")
        self.turned_away = 1
        return f"{self.name} from {self.address}: let in {limit} times, then locked"

    def _choose_address(self, settings: AxesSettings) -> tuple[Counter, ...]:
        """Choose an address that counts with no real one, and is not exempt; return what is counted."""
        reason = "AXES_IPV6_PREFIX and AXES_IPV4_PREFIX count documentation addresses together with real ones"
        for address in _documentation_addresses(settings):
            self.address = address
            request, credentials = login_request(address, agent=self.agent, fields=self._fields()), self._fields()
            client, counters = client_and_counters(settings, request, credentials)
            self._require_own(client)
            exemption = exemption_of(settings, request, credentials, client)
            if exemption is Exemption.REFUSED:
                told = f"{address} would be refused, by {setting_behind(exemption, settings, client)}"
                raise Ended(told, State.SKIPPED, stop=True)
            if exemption is not Exemption.ALL:
                return counters
            reason = f"{address} is exempt, by {setting_behind(exemption, settings, client)}"
        raise Ended(f"No guesser is locked out: {reason}.", stop=True)

    def _require_own(self, client: Client) -> None:
        """Raise ``Ended`` if the site makes of the guesser what somebody else may be, too."""
        found = client.canonical["username"]
        if found is not None and self.token not in found.lower():
            raise Ended(f"The name {self.name} counts as {found}, which may be somebody's.", State.SKIPPED, stop=True)
        if client.ip_address not in {None, self.address}:
            found = client.ip_address
            raise Ended(f"A request from {self.address} counts as from {found}.", stop=True)

    def _fields(self) -> dict[str, str]:
        return {"username": self.name, "password": self.password}

    def _guess(self) -> AxesState:
        request = login_request(self.address, agent=self.agent, fields=self._fields())
        self.has_guessed = True
        try:
            user = authenticate(request, username=self.name, password=self.password)
        finally:
            state = state_of(request)
            self.guesses += any(attempt.recorded for attempt in state.attempts)
            release(state.attempts)
        if user is not None:
            raise Ended(f"A backend has let the guesser in, as {user}.", stop=True)
        return state


def _require_let_in(state: AxesState, number: int, limit: int) -> None:
    """Raise ``Ended`` if a guess within the limit was turned away."""
    if state.unavailable:
        raise Ended(f"Guess {number} was turned away: the store cannot be asked.", stop=True)
    if state.attempt is not None and state.attempt.verdict is not Verdict.ALLOWED:
        raise Ended(f"Guess {number} was turned away, though the limit is {limit}.", stop=True)
    if state.attempt is None or not state.attempt.recorded:
        raise Ended(f"Guess {number} was not counted: Django's user_login_failed did not arrive.", stop=True)


def _documentation_addresses(settings: AxesSettings) -> Iterator[str]:
    network, length = DOCUMENTATION
    if settings.ipv6_prefix >= length:
        yield str(IPv6Address(network | secrets.randbits(128 - length)))
    if settings.ipv4_prefix >= 24:
        yield f"192.0.2.{1 + secrets.randbelow(254)}"
