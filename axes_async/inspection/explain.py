"""Why an attempt is denied, or is not: what a login of a name from an address would meet now, and what that rests on.

It asks what a login asks, in the same order, and changes nothing.
"""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.http import HttpRequest

from axes_async.client.address import FORWARDED_FOR
from axes_async.client.exemptions import Exemption, exemption_of
from axes_async.client.identity import Client, identify
from axes_async.client.normalize import canonical_username
from axes_async.clock import as_datetime
from axes_async.conf import AxesSettings, get_settings
from axes_async.conf.networks import parse_address
from axes_async.counters.events import parameter_bits
from axes_async.counters.rules import Counter
from axes_async.inspection.explanation import Counted, Explanation, Outcome
from axes_async.inspection.login_request import login_request
from axes_async.inspection.standings import Source, Standing, has_private_store, now, see, seen_in, words_for
from axes_async.login.rules_in_force import counters_of
from axes_async.models import AttemptCounter, StoreState, database
from axes_async.stores.results import SeenCounter
from axes_async.tasks.projection.resets import Scope, counters_in
from axes_async.text import printable

MOST_OTHERS = 10
"""Lockouts of the same name or address that are listed beside those that the attempt would meet."""


def explain(username: str | None, ip: str | None) -> Explanation:
    """Return what a login of ``username`` from ``ip`` would meet now; at least one of them is given.

    :raises ValueError: if ``ip`` is no address, or ``username`` is empty.
    """
    if ip is not None and parse_address(ip) is None:
        raise ValueError(f"{ip!r} is not an IP address.")
    if (username is None and ip is None) or (username is not None and canonical_username(username) is None):
        raise ValueError("A username or an address is needed.")
    settings, request = get_settings(), login_request(ip)
    field = settings.username_form_field or get_user_model().USERNAME_FIELD
    credentials = None if username is None else {field: username}
    client = identify(request, credentials)
    counters = counters_of(settings, request, credentials, client)
    exemption = exemption_of(settings, request, credentials, client)
    source, seen = see(counters)
    at = now()
    counted = _counted(counters, source, seen, client, at)
    met = {counter.digest for counter in counters}
    return Explanation(
        client=client,
        settings=settings,
        exemption=exemption,
        reason=setting_behind(exemption, settings, client),
        source=source,
        counters=counted,
        others=_others(client, met, at),
        outcome=_outcome(settings, exemption, source, counted),
        at=at,
    )


def own_address(request: HttpRequest) -> str:
    """Return what a request says of the address that it comes from, and what is made of it."""
    found = identify(request, None).ip_address or "-"
    header = printable(str(request.META.get(FORWARDED_FOR) or "-"))
    return f"{found} (REMOTE_ADDR {request.META.get('REMOTE_ADDR') or '-'}, X-Forwarded-For {header})"


def _counted(
    counters: tuple[Counter, ...], source: Source, seen: list[SeenCounter] | None, client: Client, at: int
) -> list[Counted]:
    using = database()
    void = StoreState.current(using).void_generation
    rows = AttemptCounter.objects.using(using).in_bulk([counter.digest for counter in counters])
    counted = []
    for place, counter in enumerate(counters):
        row = rows.get(counter.digest)
        named = row or AttemptCounter(
            parameters=parameter_bits(counter.rule.parameters),
            username=client.username,
            ip_address=client.ip_address,
        )
        in_rows = None if row is None else seen_in(row, at, void=void)
        counted.append(
            Counted(
                words=words_for(named),
                store=None if seen is None else _standing(counter, seen[place], at),
                rows=None if in_rows is None else _standing(counter, in_rows, at, decides=source is Source.DATABASE),
            )
        )
    return counted


def _standing(counter: Counter, seen: SeenCounter, at: int, *, decides: bool = True) -> Standing:
    return Standing(seen=seen, limit=seen.state.limit(counter.rule, at), at=at, decides=decides)


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


def setting_behind(exemption: Exemption, settings: AxesSettings, client: Client) -> str:
    """Return the name of the setting that exempts or refuses ``client``; '' for one that is neither."""
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
