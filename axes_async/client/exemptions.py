"""Who is exempt, and who is refused, whatever the counters say.

Settings and a client come in, an ``Exemption`` comes out; ``login`` carries it out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from axes_async.client.identity import Client
from axes_async.conf import AxesSettings
from axes_async.conf.networks import parse_address

QUIET_MS = 3_600_000
"""Milliseconds without an attempt after which the attempts of a refused client are counted from one again."""

REMEMBERED = 10_000
"""Refused clients whose attempts are counted; beyond that, the one that was seen first is forgotten."""


class Exemption(Enum):
    """What an attempt is exempt from."""

    NONE = auto()
    LOCKOUT = auto()
    """It is counted and recorded, and never turned away: the rule of ``AXES_ONLY_ADMIN_SITE`` outside of the admin."""
    ALL = auto()
    """It is never turned away, and its failure is neither counted nor recorded."""
    REFUSED = auto()
    """The opposite of exempt. It is turned away and counts nowhere: the password is not looked at."""


def exemption_of(
    settings: AxesSettings, request: HttpRequest | None, credentials: Mapping[str, Any] | None, client: Client
) -> Exemption:
    """Return what an attempt of ``client`` is exempt from; one that is refused is exempt from nothing."""
    if settings.only_admin_site and not is_for_admin(request):
        return Exemption.LOCKOUT
    address = parse_address(client.ip_address or "")
    is_listed = address in settings.ip_whitelist
    if address in settings.ip_blacklist or (settings.only_whitelist and not is_listed):
        return Exemption.REFUSED
    is_exempt = (
        (is_listed and (settings.never_lockout_whitelist or settings.only_whitelist))
        or (settings.never_lockout_get and request is not None and request.method == "GET")
        or (settings.whitelist_callable is not None and settings.whitelist_callable(request, credentials))
    )
    return Exemption.ALL if is_exempt else Exemption.NONE


def is_for_admin(request: HttpRequest | None) -> bool:
    """Return whether ``request`` is for a view of the admin, or for a path below it; without an admin none is."""
    if request is None:
        return False
    try:
        return is_admin_view(request) or request.path.startswith(reverse("admin:index"))
    except NoReverseMatch:
        return False


def is_admin_view(request: HttpRequest | None) -> bool:
    """Return whether the view of ``request`` is one of an admin site."""
    return "admin" in getattr(getattr(request, "resolver_match", None), "app_names", ())


_refusals: OrderedDict[str, tuple[int, int]] = OrderedDict()
"""How many attempts of a client were refused by this process, and when the last one was (epoch milliseconds)."""


def count_refusal(client: Client, now: int) -> int:
    """Return how many attempts of ``client`` this process has refused of late, this one included.

    A refused client costs no round trip; that two threads may count one attempt less only makes for a row more.
    """
    key = client.canonical.get("ip_address") or ""
    count, last = _refusals.pop(key, (0, now))
    count = count + 1 if now - last < QUIET_MS else 1
    _refusals[key] = count, now
    if len(_refusals) > REMEMBERED:
        _refusals.popitem(last=False)
    return count
