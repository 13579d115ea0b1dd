"""Why an attempt is denied, or is not: what a login of a name from an address would meet now, and what that rests on.

It asks what a login asks, in the same order, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch
from django.utils.timesince import timeuntil
from django.utils.translation import gettext as _

from axes_async.client.address import FORWARDED_FOR
from axes_async.client.exemptions import Exemption, exemption_of
from axes_async.client.identity import Client, identify
from axes_async.client.normalize import canonical_username
from axes_async.clock import as_datetime
from axes_async.conf import AxesSettings, get_settings
from axes_async.conf.networks import parse_address
from axes_async.counters.events import parameter_bits
from axes_async.counters.rules import Counter
from axes_async.inspection.lockouts import Source, Standing, has_private_store, now, see, seen_in, words_for
from axes_async.login.rules import counters_of
from axes_async.models import AttemptCounter, StoreState, database
from axes_async.stores.results import SeenCounter
from axes_async.tasks.projection.resets import Scope, counters_in
from axes_async.text import printable

MOST_OTHERS = 10
"""Lockouts of the same name or address that are listed beside those that the attempt would meet."""


class Outcome(StrEnum):
    """What the attempt would meet."""

    OFF = "off"
    REFUSED = "refused"
    EXEMPT = "exempt"
    COUNTED = "counted"
    NO_RULE = "no rule"
    UNAVAILABLE = "unavailable"
    UNCHECKED = "unchecked"
    LOCKED = "locked"
    BUSY = "busy"
    CHECKED = "checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One counter of the attempt."""

    words: str
    store: Standing | None
    """As the store has it, if it could be asked."""
    rows: Standing | None
    """As the rows have it, if there is one."""

    @property
    def decisive(self) -> Standing | None:
        return self.store or self.rows

    def both(self) -> list[tuple[str, Standing | None]]:
        return [(_("store"), self.store), (_("rows"), self.rows)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    client: Client
    settings: AxesSettings
    exemption: Exemption
    reason: str
    """The setting behind the exemption; '' without one."""
    source: Source
    counters: list[Counted]
    others: list[str]
    """Lockouts of the same name or address that this very attempt would not meet."""
    outcome: Outcome
    at: int

    @property
    def locked_until(self) -> int | None:
        """When the longest lockout that it meets ends, in epoch ms; 0: by an unlock; ``None``: it meets none."""
        met = [one.decisive for one in self.counters if one.decisive is not None and one.decisive.is_locked]
        ends = [standing.locked_until for standing in met]
        return None if not ends else 0 if 0 in ends else max(ends)

    @property
    def left(self) -> int | None:
        """How many failures more would lock; ``None``: none would."""
        counts = [one.decisive for one in self.counters if one.decisive is not None and one.decisive.limit]
        return min((one.limit - one.failures for one in counts), default=None)

    def as_json(self) -> dict[str, Any]:
        client = self.client
        return {
            "username": {"shown": client.username, "counted_as": client.canonical["username"]},
            "ip_address": {"shown": client.ip_address, "counted_as": client.canonical["ip_address"]},
            "worked_out": list(self.worked_out()),
            "exemption": self.exemption.name.lower(),
            "setting": self.reason,
            "asked": self.source,
            "counters": [
                {"counter": one.words, "store": _facts(one.store), "rows": _facts(one.rows)} for one in self.counters
            ],
            "other_lockouts": self.others,
            "outcome": self.outcome,
            "locked_until": self.locked_until,
            "failures_left": self.left,
        }

    def worked_out(self) -> Iterator[str]:
        """Return how the address and the name are worked out, each as a sentence."""
        settings, address = self.settings, parse_address(self.client.ip_address or "")
        canonical = self.client.canonical
        for value, counted in (
            (self.client.ip_address, canonical["ip_address"]),
            (self.client.username, canonical["username"]),
        ):
            if value is not None:
                shown = {"value": printable(value), "counted": printable(counted or "-")}
                yield _("%(value)s counts as %(counted)s.") % shown
        if settings.client_ip_callable is not None:
            yield _("The address of a request is what %s returns.") % "AXES_CLIENT_IP_CALLABLE"
        elif address is not None and address in settings.trusted_proxies:
            yield _("%s is a trusted proxy: clients behind it are found in the header that it sends.") % address
        else:
            yield _("The address of a request is %s, and behind a trusted proxy the one in its header.") % "REMOTE_ADDR"
        if settings.username_callable is not None:
            yield _("The username of a request is what %s returns.") % "AXES_USERNAME_CALLABLE"

    def verdict(self) -> str:
        """Return what the attempt would meet, as a sentence."""
        texts = {
            Outcome.OFF: _("Nothing is counted and nobody is locked out: %s is off.") % "AXES_ENABLED",
            Outcome.REFUSED: _("The attempt would be turned away, by %s.") % self.reason,
            Outcome.EXEMPT: _("The password would be checked, and a failure would not count, by %s.") % self.reason,
            Outcome.COUNTED: _("The password would be checked; a failure counts but never locks, by %s.") % self.reason,
            Outcome.NO_RULE: _("The password would be checked: no rule counts this client."),
            Outcome.UNAVAILABLE: _("The attempt would be turned away: the store cannot be asked."),
            Outcome.UNCHECKED: _("The password would be checked: the store cannot be asked, and nothing is counted."),
            Outcome.BUSY: _("The attempt would wait: as many passwords as are left are being checked now."),
            Outcome.CHECKED: _("The password would be checked."),
        }
        if self.outcome is Outcome.LOCKED:
            return _("The attempt would be turned away: %s.") % _end(self.locked_until or 0, self.at)
        if self.outcome is Outcome.CHECKED and self.left is not None:
            return texts[self.outcome] + " " + _("Failures until the next lockout: %s.") % self.left
        return texts[self.outcome]


def explain(username: str | None, ip: str | None) -> Explanation:
    """Return what a login of ``username`` from ``ip`` would meet now; at least one of them is given.

    :raises ValueError: if ``ip`` is no address, or ``username`` is empty.
    """
    if ip is not None and parse_address(ip) is None:
        raise ValueError(f"{ip!r} is not an IP address.")
    if (username is None and ip is None) or (username is not None and canonical_username(username) is None):
        raise ValueError("A username or an address is needed.")
    settings, request = get_settings(), _request_from(ip)
    field = settings.username_form_field or get_user_model().USERNAME_FIELD
    credentials = None if username is None else {field: username}
    client = identify(request, credentials)
    counters = counters_of(settings, request, credentials, client)
    exemption = exemption_of(settings, request, credentials, client)
    source, seen = see(counters)
    counted, at = _counted(counters, source, seen, client), now()
    met = {counter.digest for counter in counters}
    return Explanation(
        client=client,
        settings=settings,
        exemption=exemption,
        reason=_setting_behind(exemption, settings, client),
        source=source,
        counters=counted,
        others=_others(client, met, at),
        outcome=_outcome(settings, exemption, source, counted),
        at=at,
    )


def standing_words(standing: Standing) -> str:
    """Return how a counter stands, such as "5 of 5; locked for 12 minutes; turned away: 3; …"."""
    parts = [_("%(failures)s of %(limit)s") % {"failures": standing.failures, "limit": standing.limit}]
    parts.append(_end(standing.locked_until, standing.at) if standing.is_locked else _("not locked"))
    if standing.decides:
        parts += [_("turned away") + f": {standing.seen.blocked}"]
        parts += [_("password checks under way") + f": {standing.seen.reservations}"]
    return "; ".join(parts)


def own_address(request: HttpRequest) -> str:
    """Return what a request says of the address that it comes from, and what is made of it."""
    found = identify(request, None).ip_address or "-"
    header = printable(str(request.META.get(FORWARDED_FOR) or "-"))
    return f"{found} (REMOTE_ADDR {request.META.get('REMOTE_ADDR') or '-'}, X-Forwarded-For {header})"


def _request_from(ip: str | None) -> HttpRequest:
    """Return what stands for a request of the login form."""
    request = HttpRequest()
    try:
        path = resolve_url("admin:login" if get_settings().only_admin_site else django_settings.LOGIN_URL)
    except NoReverseMatch:
        path = "/"
    request.method, request.path, request.path_info = "POST", path, path
    request.META = {"REMOTE_ADDR": ip or "", "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    return request


def _counted(
    counters: tuple[Counter, ...], source: Source, seen: list[SeenCounter] | None, client: Client
) -> list[Counted]:
    at, using = now(), database()
    void = StoreState.objects.using(using).filter(pk=1).values_list("void_generation", flat=True).first()
    rows = AttemptCounter.objects.using(using).in_bulk([counter.digest for counter in counters])
    counted = []
    for place, counter in enumerate(counters):
        row = rows.get(counter.digest)
        named = row or AttemptCounter(
            parameters=parameter_bits(counter.rule.parameters),
            username=client.username,
            ip_address=client.ip_address,
        )
        in_rows = None if row is None else seen_in(row, at, void=-1 if void is None else void)
        counted.append(
            Counted(
                words=words_for(named),
                store=None if seen is None else _standing(counter, seen[place], at),
                rows=None if in_rows is None else _standing(counter, in_rows, at, decides=source is Source.DATABASE),
            )
        )
    return counted


def _standing(counter: Counter, seen: SeenCounter, at: int, *, decides: bool = True) -> Standing:
    limit = counter.rule.limit_at(seen.state.failures, locked=at < seen.state.locked_until)
    return Standing(seen=seen, limit=limit, at=at, decides=decides)


def _outcome(settings: AxesSettings, exemption: Exemption, source: Source, counted: list[Counted]) -> Outcome:
    by_exemption = {
        Exemption.REFUSED: Outcome.REFUSED,
        Exemption.ALL: Outcome.EXEMPT,
        Exemption.LOCKOUT: Outcome.COUNTED,
    }
    if not settings.enabled:
        return Outcome.OFF
    if exemption in by_exemption:
        return by_exemption[exemption]
    if not counted:
        return Outcome.NO_RULE
    if source is Source.ROWS and not has_private_store() and settings.on_store_failure != "database":
        return Outcome.UNAVAILABLE if settings.on_store_failure == "deny" else Outcome.UNCHECKED
    standing = [one.decisive for one in counted if one.decisive is not None and one.decisive.limit]
    if any(one.is_locked for one in standing):
        return Outcome.LOCKED
    if any(one.failures + one.seen.reservations >= one.limit for one in standing):
        return Outcome.BUSY
    return Outcome.CHECKED


def _setting_behind(exemption: Exemption, settings: AxesSettings, client: Client) -> str:
    address = parse_address(client.ip_address or "")
    match exemption:
        case Exemption.LOCKOUT:
            return "AXES_ONLY_ADMIN_SITE"
        case Exemption.REFUSED:
            return "AXES_IP_BLACKLIST" if address in settings.ip_blacklist else "AXES_ONLY_WHITELIST"
        case Exemption.ALL:
            return "AXES_IP_WHITELIST" if address in settings.ip_whitelist else "AXES_WHITELIST_CALLABLE"
    return ""


def _others(client: Client, met: set[str], at: int) -> list[str]:
    """Return the words for lockouts that have the name or the address in them, as the rows know them."""
    scope = Scope(kind="either", username=client.username, ip_address=client.ip_address)
    locked = AttemptCounter.objects.using(database()).locked(as_datetime(at)).filter(counters_in(scope))
    return [words_for(row) for row in locked.exclude(pk__in=met)[:MOST_OTHERS]]


def _end(until: int, at: int) -> str:
    if not until:
        return _("locked until unlocked")
    left = timeuntil(as_datetime(until), as_datetime(at)) if until - at >= 60_000 else _("less than a minute")
    return _("locked for %s") % left


def _facts(standing: Standing | None) -> dict[str, Any] | None:
    if standing is None:
        return None
    return {
        "failures": standing.failures,
        "limit": standing.limit,
        "reservations": standing.seen.reservations if standing.decides else None,
        "locked": standing.is_locked,
        "seconds_left": standing.seconds_left if standing.is_locked else None,
        "turned_away": standing.seen.blocked if standing.decides else None,
    }
